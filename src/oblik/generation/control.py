"""Control: a picture says where a face is turned, or what is near, and a ControlNet follows it.

In: five landmarks, a map of nearness, or a finished control image; a pack. Out: control images as the field
draws them; what a pack lacks for them, with what does instead. Knows nothing of networks.

Pose is drawn the way OpenPose's renderer draws what five landmarks know (Cao et al. 2019; the colours are
its own): nose and eyes as coloured joints with limbs between them, the corners of the mouth as white dots of
the face. Depth is grey, near white, far black, as MiDaS draws it (Ranftl et al. 2020).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from oblik.errors import BackendUnavailable, InvalidInput
from oblik.faces.stack import Face, Points_52
from oblik.generation.adapters import Lack, pull
from oblik.packs.manifest import OpenPack
from oblik.registry import load

Kind = Literal["pose", "depth", "given"]
FOLDER, DEPTH = "controlnet", "depth"
"""Parts of a pack: its ControlNet, or one for each kind inside; its network that reads depth from a photo."""
FAMILIES = ("qwen_image", "stable_diffusion")
NOSE, EYE_LEFT, EYE_RIGHT = (255, 0, 0), (170, 0, 255), (255, 0, 255)
LIMB_LEFT, LIMB_RIGHT = (51, 0, 153), (153, 0, 153)
"""OpenPose's limbs nose-eye at 0.6 of their colour. The eye on the left of the picture is the right one."""
FINISHED = "give a finished depth image, near white: oblik generate PROMPT --control DEPTH.png"
SHARPER = 4
BACKENDS = {"onnx": "oblik.generation.backends.depth:OnnxDepth"}
EXTRAS: dict[str, str] = {}


class DepthReader(Protocol):
    """What reads depth from a photo."""

    def nearness(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W), what is nearer is larger, 0 or more, in no unit."""
        ...


def net_folder(kind: Kind, pack: OpenPack) -> Path | None:
    """The ControlNet of a pack for this kind: its own folder, else the one for all kinds."""
    for folder in (pack.folder / FOLDER / kind, pack.folder / FOLDER):
        if (folder / "config.json").is_file():
            return folder
    return None


def lack(kind: Kind, pack: OpenPack) -> Lack | None:
    """What the pack lacks for pictures that follow a control image; None where it has it."""
    name, family = pack.manifest.name, pack.manifest.family
    if family not in FAMILIES:
        what = f"control: no ControlNet is known for the family {family} of {name}"
    elif net_folder(kind, pack) is None:
        what = f"control: the pack {name} has no {FOLDER}"
    else:
        return None
    return Lack(what, "say the view in the prompt, or pull it where the pack offers it", pull(pack, FOLDER))


def open_depth(pack: OpenPack) -> DepthReader:
    """The pack's network that reads depth.

    Raises:
        BackendUnavailable: the pack has none; the hint is how to get it, or that a finished image serves.
    """
    if not (pack.folder / DEPTH / "depth.onnx").is_file():
        raise BackendUnavailable(
            f"depth is not read from photos here: the pack {pack.manifest.name} has no {DEPTH}/depth.onnx",
            hint=pull(pack, DEPTH, FINISHED),
        )
    reader: DepthReader = load("depth reader", "onnx", BACKENDS, EXTRAS)(pack.folder / DEPTH)
    return reader


def pose_image(landmarks_px: Points_52, width_px: int, height_px: int) -> Image.Image:
    """Five landmarks (as in `oblik.faces.stack.Face`) on black."""
    canvas = Image.new("RGB", (width_px * SHARPER, height_px * SHARPER))
    draw = ImageDraw.Draw(canvas)
    radius = SHARPER * max(2.0, min(width_px, height_px) / 128)
    eye_left, eye_right, nose, *mouth = [
        (float(x) * SHARPER, float(y) * SHARPER) for x, y in np.asarray(landmarks_px)
    ]
    for eye, colour in ((eye_left, LIMB_LEFT), (eye_right, LIMB_RIGHT)):
        draw.line([nose, eye], fill=colour, width=round(1.5 * radius))
    joints = [(nose, NOSE), (eye_left, EYE_LEFT), (eye_right, EYE_RIGHT)]
    for (x, y), colour in joints + [(corner, (255, 255, 255)) for corner in mouth]:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return canvas.resize((width_px, height_px), Image.Resampling.BOX)


def depth_image(nearness_HW: NDArray[np.floating[Any]]) -> Image.Image:
    """Nearness in any unit (what is nearer is larger; 0 is nothing) as grey, the nearest point white."""
    nearest = max(float(nearness_HW.max()), 1e-9)
    grey_HW = np.rint(255 * np.clip(nearness_HW / nearest, 0, 1)).astype(np.uint8)
    return Image.fromarray(grey_HW).convert("RGB")


def pose_from(face: Face | None, photo: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """The pose of a photo's face on a picture of ``size_px``, cut so that the face stays inside.

    Raises InvalidInput when no face was found.
    """
    if face is None:
        raise InvalidInput("no face is found in the photo of the pose", hint="choose another photo")
    left, top, wide, _high = cut(photo.size, size_px, tuple(face.landmarks.mean(axis=0)))
    return pose_image((face.landmarks - (left, top)) * (size_px[0] / wide), *size_px)


def fitted(image: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """A finished control image in the shape of the picture: its middle, cut."""
    left, top, wide, high = cut(image.size, size_px, (image.width / 2, image.height / 2))
    box = (left, top, left + wide, top + high)
    return image.convert("RGB").resize(size_px, Image.Resampling.LANCZOS, box=box)


def cut(
    size_px: tuple[int, int], shape: tuple[int, int], about: tuple[float, ...]
) -> tuple[float, float, float, float]:
    """Left, top, width and height of the largest window with the sides of ``shape``, as near ``about`` as
    the image allows."""
    scale = min(size_px[0] / shape[0], size_px[1] / shape[1])
    wide, high = shape[0] * scale, shape[1] * scale
    left = float(np.clip(about[0] - wide / 2, 0, size_px[0] - wide))
    top = float(np.clip(about[1] - high / 2, 0, size_px[1] - high))
    return left, top, wide, high
