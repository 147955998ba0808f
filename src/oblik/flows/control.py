"""A control image for a plan: from a photo's pose or depth, or finished.

In: a plan, a file, an open pack. Out: the plan with its control; the image lies in the persona's folder under
its own hash, where a replay finds it. Knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from oblik.errors import BackendUnavailable
from oblik.faces.stack import FaceStack
from oblik.generation.adapters import best_face
from oblik.generation.control import Kind, depth_image, fitted, lack, open_depth, pose_from
from oblik.generation.plan import Control, Plan
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, atomic_write
from oblik.personas.permission import permit
from oblik.personas.persona import Persona

FOLDER = "controls"


class Wish(NamedTuple):
    """What pictures are to follow: a photo's pose or depth, or a finished control image; and how closely."""

    kind: Kind
    file: Path
    scale: float


def controlled(
    persona: Persona, plan: Plan, wish: Wish, *, home: Home, pack: OpenPack, stack: Callable[[], FaceStack],
    now: datetime,
) -> Plan:  # fmt: skip
    """The persona's plan with the control of the wish.

    Raises:
        ConsentError: the persona's consent does not cover portraits today; the file was not read.
        BackendUnavailable: the pack has no ControlNet, or nothing that reads depth; the hint is what does.
        InvalidInput: the file is no picture, or holds no face.
    """
    permit(persona, "generate", home=home, now=now)
    if missing := lack(wish.kind, pack):
        raise BackendUnavailable(missing.what, hint=f"{missing.instead}: {missing.hint}")
    image = control_image(wish, (plan.width_px, plan.height_px), pack, stack)
    written = io.BytesIO()
    image.save(written, "PNG")
    name = f"{FOLDER}/{hashlib.sha256(written.getvalue()).hexdigest()[:16]}.png"
    atomic_write(home.persona(persona.slug).root / name, written.getvalue())
    control = Control(kind=wish.kind, image=name, weight=wish.scale)
    return plan.model_copy(update={"controls": (control,)})


def control_image(
    wish: Wish, size_px: tuple[int, int], pack: OpenPack, stack: Callable[[], FaceStack]
) -> Image.Image:
    """The control image of a wish, in the shape of the picture."""
    photo = open_upright(wish.file).convert("RGB")
    if wish.kind == "pose":
        return pose_from(best_face(stack(), np.asarray(photo)), photo, size_px)
    if wish.kind == "depth":
        return fitted(depth_image(open_depth(pack).nearness(np.asarray(photo))), size_px)
    return fitted(photo, size_px)
