"""What every part of the door opens first: the home folder, the pack, the face stack, the clock.

In: settings. Out: nouns. Knows nothing of what is done with them.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oblik.faces.stack import FaceStack
    from oblik.packs.manifest import OpenPack
    from oblik.paths import Home
    from oblik.personas.store import PersonaStore
    from oblik.settings import Settings
    from oblik.training.trainer import Trainer


PACKS_OWN = "pack"


def home_of(settings: Settings) -> Home:
    """The folders under ``settings.home``."""
    from oblik.paths import Home

    return Home(settings.home)


def pack_of(settings: Settings) -> OpenPack:
    """The active pack."""
    from oblik.packs.store import open_pack

    return open_pack(settings.pack, home_of(settings))


def face_stack_of(pack: OpenPack, settings: Settings) -> FaceStack:
    """The one face stack of datasets, adapters and measurements: the pack's own, unless set otherwise."""
    from oblik.faces.stack import open_stack

    if settings.face_stack != PACKS_OWN:
        return open_stack(settings.face_stack)
    options = {"backend": "onnx", **pack.manifest.face_stack}
    if options["backend"] == "onnx":
        options.setdefault("folder", pack.faces_folder)
    return open_stack(**options)


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
