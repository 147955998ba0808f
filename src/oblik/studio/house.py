"""What every part of the door opens first: the home folder, the pack, the face stack, the clock.

In: settings. Out: nouns. Knows nothing of what is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblik.faces.stack import FaceStack
    from oblik.generation.engine import Engine
    from oblik.generation.heat import HeatGuard
    from oblik.generation.plan import Plan
    from oblik.labels import Labeller
    from oblik.packs.manifest import OpenPack
    from oblik.paths import Home
    from oblik.personas.store import PersonaStore
    from oblik.settings import Settings
    from oblik.training.trainer import Trainer


PACKS_OWN, DEFAULT_FACES = "pack", "auraface"
"""The setting that means the base model's own face networks, and what stands in for a model without any."""


def home_of(settings: Settings) -> Home:
    """The folders under ``settings.home``."""
    from oblik.paths import Home

    return Home(settings.home)


def pack_of(settings: Settings) -> OpenPack:
    """The active pack."""
    from oblik.packs.store import open_pack

    return open_pack(settings.pack, home_of(settings))


def face_stack_of(pack: OpenPack, settings: Settings) -> FaceStack:
    """The one face stack of datasets, adapters and measurements: the pack's own, unless set otherwise.

    Raises:
        NotFound: the face pack that is needed is not on this machine.
        PackBroken: its files are missing or unfit.
    """
    from oblik.faces.stack import open_stack

    source = face_pack_of(pack, settings)
    if source is None:
        return open_stack(settings.face_stack)
    options = {"backend": "onnx", **source.manifest.face_stack}
    if options["backend"] == "onnx":
        options.setdefault("folder", source.faces_folder)
    return open_stack(**options)


def engine_of(
    settings: Settings, pack: OpenPack, pause_s: float = 0.0, guard: HeatGuard | None = None
) -> Engine:
    """The engine, which looks at photos and faces with the one face stack. A heat guard goes with it: its
    own, which rests ``pause_s`` between batches, or the ``guard`` of somebody who reads it. Before the first
    picture of each run the log gets the ids of the trigger token."""
    from oblik.generation.adapters import Sight
    from oblik.generation.engine import Guarded
    from oblik.generation.heat import HeatGuard, open_thermometer
    from oblik.studio.operations import log

    def tokens(plan: Plan, ids: Sequence[int]) -> None:
        log(settings, "tokens", plan.persona, lora=plan.lora, pictures=len(plan.seeds), token_ids=list(ids))

    if guard is None:
        guard = HeatGuard(open_thermometer(device=settings.device))
        guard.pause_s = pause_s
    sight = Sight(home_of(settings).personas, lambda: face_stack_of(pack, settings))
    return Guarded(guard, device=settings.device, sight=sight, labels=labels_of(settings), tokens=tokens)


def labels_of(settings: Settings) -> Labeller:
    """How pictures are labelled; the key that signs them lies in ``credentials`` in the home."""
    from oblik.labels import Labeller, open_sign

    sign = open_sign(settings.home / "credentials") if settings.content_credentials else None
    return Labeller(settings.label_prompt, sign)


def face_pack_of(pack: OpenPack, settings: Settings) -> OpenPack | None:
    """The pack whose face networks are used; None when the setting names a backend that needs no pack."""
    from oblik.errors import NotFound, PackBroken
    from oblik.faces.networks import FACES
    from oblik.faces.stack import BACKENDS
    from oblik.packs.catalogue import catalogue
    from oblik.packs.store import open_pack

    own = settings.face_stack == PACKS_OWN
    if own and (pack.manifest.face_stack or (pack.faces_folder / FACES).is_file()):
        return pack
    name = DEFAULT_FACES if own else settings.face_stack
    if name in BACKENDS.keys() - {"onnx"}:
        return None
    try:
        found = open_pack(name, home_of(settings))
    except NotFound as missing:
        if not own and name != "onnx" and name not in catalogue():
            return None
        why = f"{pack.manifest.name} brings no face networks, and the default" if own else "the face pack"
        hint = f"oblik pack pull {name}" if name in catalogue() else f"oblik --face-stack {DEFAULT_FACES}"
        raise NotFound(f"{why} {name!r} is not on this machine", hint=hint) from missing
    if not (found.manifest.face_stack or (found.faces_folder / FACES).is_file()):
        raise PackBroken(f"the pack {name!r} has no faces/{FACES}", hint=f"oblik pack pull {name}")
    return found


def face_caution(pack: OpenPack, settings: Settings) -> str:
    """The licences of the face networks in use that forbid commercial use; empty when none does."""
    from oblik.errors import OblikError

    try:
        source = face_pack_of(pack, settings)
    except OblikError:  # raised again by what needs the faces
        return ""
    parts = source.manifest.components.values() if source else []
    faces = [part for part in parts if any(file.path.startswith("faces/") for file in part.files)]
    closed = dict.fromkeys(part.licence for part in faces if not part.commercial_use)
    if source is None or not closed:
        return ""
    return f"the face networks of {source.manifest.name} forbid commercial use ({', '.join(closed)})"


def trainer_of(settings: Settings, name: str) -> Trainer:
    """The trainer called ``name``, with its settings."""
    from oblik.training.trainer import open_trainer

    options: dict[str, dict[str, Any]] = {
        "kohya": {
            "script": settings.kohya_script_path,
            "workspace": settings.kohya_workspace,
            "accelerate": settings.kohya_accelerate_bin,
        }
    }
    return open_trainer(name, device=settings.device, **options.get(name, {}))


def personas_of(settings: Settings) -> PersonaStore:
    """The personas under ``settings.home``."""
    from oblik.personas.store import PersonaStore

    return PersonaStore(home_of(settings))


def now() -> datetime:
    """The wall clock, read at the door and nowhere else."""
    return datetime.now(timezone.utc).replace(microsecond=0)
