"""A control image for a plan: from a photo's pose or depth, or finished.

In: a plan whose control names a file, an open pack. Out: the plan with its control image, which lies in the
persona's folder under its own hash, where a replay finds it. Knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from oblik.errors import BackendUnavailable, NotFound
from oblik.faces.stack import FaceStack
from oblik.generation.adapters import best_face
from oblik.generation.control import depth_image, fitted, lack, open_depth, pose_from
from oblik.generation.plan import Control, Plan
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, atomic_write
from oblik.personas.permission import permit
from oblik.personas.persona import Persona

FOLDER = "controls"


def controlled(
    persona: Persona, plan: Plan, *, home: Home, pack: OpenPack, stack: Callable[[], FaceStack], now: datetime
) -> Plan:
    """The persona's plan with control images in place of the files that its controls name.

    A path that is not absolute is that of an image in the persona's folder, and stays.

    Raises:
        ConsentError: the persona's consent does not cover portraits today; no file was read.
        BackendUnavailable: the pack has no ControlNet, or nothing that reads depth; the hint is what does.
        NotFound, InvalidInput: there is no such file, it is no picture, or holds no face.
    """
    if not plan.controls:
        return plan
    permit(persona, "generate", home=home, now=now)
    size_px = (plan.width_px, plan.height_px)
    made = tuple(_kept(persona, wish, size_px, home, pack, stack) for wish in plan.controls)
    return plan.model_copy(update={"controls": made})


def _kept(
    persona: Persona, wish: Control, size_px: tuple[int, int], home: Home, pack: OpenPack,
    stack: Callable[[], FaceStack],
) -> Control:  # fmt: skip
    if missing := lack(wish.kind, pack):
        raise BackendUnavailable(missing.what, hint=f"{missing.instead}: {missing.hint}")
    if not wish.image or not Path(wish.image).is_absolute():
        return wish
    if not Path(wish.image).is_file():
        raise NotFound(f"there is no picture at {wish.image}", hint="name a photo, or a control image")
    image = control_image(wish, size_px, pack, stack)
    written = io.BytesIO()
    image.save(written, "PNG")
    name = f"{FOLDER}/{hashlib.sha256(written.getvalue()).hexdigest()[:16]}.png"
    atomic_write(home.persona(persona.slug).root / name, written.getvalue())
    return wish.model_copy(update={"image": name})


def control_image(
    wish: Control, size_px: tuple[int, int], pack: OpenPack, stack: Callable[[], FaceStack]
) -> Image.Image:
    """The control image of a wish, in the shape of the picture."""
    photo = open_upright(Path(wish.image)).convert("RGB")
    if wish.kind == "pose":
        return pose_from(best_face(stack(), np.asarray(photo)), photo, size_px)
    if wish.kind == "depth":
        return fitted(depth_image(open_depth(pack).nearness(np.asarray(photo))), size_px)
    return fitted(photo, size_px)
