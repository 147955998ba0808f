"""Identity adapters that are trained here.

In: settings and plain values. Out: manifests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblik.studio.house import face_stack_of, home_of, now, pack_of
from oblik.studio.operations import operation

if TYPE_CHECKING:
    from oblik.progress import Progress
    from oblik.settings import Settings
    from oblik.training.adapter import AdapterManifest


def train_adapter(
    settings: Settings, folder: Path | None = None, *, rendered: int = 0, noun: str = "person",
    side_px: int | None = None, restart: bool = False, asked: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> AdapterManifest:  # fmt: skip
    """Train the active pack's identity adapter from a folder of people, or from ``rendered`` ones.

    ``asked`` are values of `AdapterConfig`; None there was not asked.
    """
    from oblik.flows.adapter import AdapterOrder
    from oblik.flows.adapter import train_adapter as run
    from oblik.progress import SilentProgress
    from oblik.training.adapter import AdapterConfig

    config = AdapterConfig(**{name: value for name, value in (asked or {}).items() if value is not None})
    order = AdapterOrder(folder, rendered, noun=noun, side_px=side_px, restart=restart, config=config)
    with operation(settings, "train adapter", None) as details:
        pack = pack_of(settings)
        made = run(
            order, home=home_of(settings), pack=pack, stack=face_stack_of(pack, settings),
            device=settings.device, progress=progress or SilentProgress(), now=now(),
        )  # fmt: skip
        details.update(pack=made.pack, people=made.people, pictures=made.pictures, weights=made.sha256)
    return made


def list_adapters(settings: Settings) -> list[AdapterManifest]:
    """Every adapter that was trained here, by pack."""
    from oblik.flows.adapter import list_adapters as found

    return found(home_of(settings))


def remove_adapter(settings: Settings, pack: str) -> None:
    """Forget the adapter of a pack; the pack's own is used again, where it has one."""
    from oblik.flows.adapter import remove_adapter as forget

    with operation(settings, "remove adapter", None) as details:
        forget(pack, home_of(settings))
        details.update(pack=pack)
