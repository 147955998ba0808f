"""Testing a trained LoRA, and whose faces it is told apart from.

In: settings and plain values. Out: an `Acceptance`, `Impostors`, and where they lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import engine_of, face_stack_of, home_of, now, pack_of
from oblik.studio.operations import operation
from oblik.studio.people import show_persona

if TYPE_CHECKING:
    from oblik.flows.impostors import Gathered
    from oblik.likeness.acceptance import Acceptance
    from oblik.progress import Progress
    from oblik.settings import Settings


class Accepted(NamedTuple):
    """What a test of a LoRA found, and the artifact's folder."""

    acceptance: Acceptance
    folder: Path


def accept(
    settings: Settings,
    slug: str | None = None,
    *,
    version: str | None = None,
    images: int | None = None,
    mode: str = "fast",
    progress: Progress | None = None,
) -> Accepted:
    """Test the LoRA in use, or the one named, with ``images`` pictures (default: 12) in ``mode``."""
    from oblik.flows.acceptance import CONDITIONS
    from oblik.flows.acceptance import accept as run
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "likeness", persona.slug) as details:
        pack = pack_of(settings)
        found = run(
            persona, version, home=home, pack=pack, engine=engine_of(settings, pack),
            stack=face_stack_of(pack, settings), progress=progress or SilentProgress(), now=now(),
            images=images or len(CONDITIONS), mode=mode,
        )  # fmt: skip
        details.update(lora=found.version, pictures=found.images, accepted=str(found.accepted))
    return Accepted(found, home.persona(persona.slug).loras / found.version)


def usual_mode(settings: Settings, slug: str | None = None, version: str | None = None) -> tuple[str, str]:
    """The persona's mode when none is named, "fast" or "reliable", and why it is not fast."""
    from oblik.flows.acceptance import usual_mode as run

    return run(home_of(settings).persona(show_persona(settings, slug).slug).loras, version)


def gather_impostors(
    settings: Settings,
    folder: Path | None = None,
    *,
    count: int = 400,
    progress: Progress | None = None,
) -> Gathered:
    """Calibrate from now on with the people in ``folder``, or with ``count`` that the pack paints."""
    from oblik.flows.class_images import painter_of
    from oblik.flows.impostors import from_folder, from_pack
    from oblik.progress import SilentProgress

    progress, home = progress or SilentProgress(), home_of(settings)
    with operation(settings, "likeness", None) as details:
        pack = pack_of(settings)
        stack = face_stack_of(pack, settings)
        if folder is not None:
            found = from_folder(folder, stack, home, progress)
        else:
            painter = painter_of(
                pack, lambda: engine_of(settings, pack), home=home, progress=progress, now=now()
            )
            found = from_pack(painter, count, stack, home, progress)
        details.update(people=found.impostors.identities, faces=len(found.impostors.embeddings_MD))
    return found
