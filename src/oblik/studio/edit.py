"""A persona's face into a frame that exists.

In: settings and plain values. Out: the edited pictures and where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblik.studio.house import engine_of, face_stack_of, home_of, now, pack_of
from oblik.studio.operations import operation
from oblik.studio.people import list_personas, show_persona
from oblik.studio.pictures import Generated

if TYPE_CHECKING:
    from oblik.progress import Progress
    from oblik.settings import Settings


def edit(
    settings: Settings,
    image: Path,
    slug: str | None = None,
    *,
    text: str = "",
    wish: Mapping[str, Any] | None = None,
    asked: Mapping[str, Any] | None = None,
    preset: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], object] | None = None,
) -> Generated:
    """Draw the persona into ``image``. ``wish`` says what may change (`oblik.flows.edit.Wish`), ``asked`` are
    values of a plan; ``say`` is told what is not done, and why.

    Raises:
        ConsentError: the consent does not cover edits.
        InvalidInput: nothing says what may change, or no face is found.
    """
    from oblik.flows.edit import Where, Wish
    from oblik.flows.edit import edit as run
    from oblik.flows.generate import Order
    from oblik.flows.reliable import silent
    from oblik.generation.ladder import Heights
    from oblik.generation.presets import find_preset
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "edit", persona.slug) as details:
        pack, presets = pack_of(settings), home.root / "presets"
        chosen = find_preset(preset or "fast", presets)
        where = Where(
            home, pack, engine_of(settings, pack, chosen.pace.pause_s), lambda: face_stack_of(pack, settings),
            chosen,
            find_preset("reliable", presets).ladder.get(pack.manifest.family, Heights()), say or silent,
        )  # fmt: skip
        record, folder = run(
            persona, Order(text, asked or {}), Wish(image, **(wish or {})), where,
            progress=progress or SilentProgress(), now=now(),
            others=[other.trigger for other in list_personas(settings) if other.slug != persona.slug],
        )  # fmt: skip
        details.update(pictures=len(record.pictures), batch=folder.name)
    return Generated(record, folder)
