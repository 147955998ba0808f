"""Control images of rendered people, exact: what a net is taught with, and something to try it with.

In: who, and how the head is turned. Out: a photo with the images of its pose and its depth. Knows no model.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from oblik.generation.control import depth_image, pose_image
from oblik.images import save_clean_png
from oblik.miniature.architecture import IMAGE_PX
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot


def write_control_images(
    folder: Path, seed: int, yaw_deg: float = 0.0, pitch_deg: float = 0.0, side_px: int = 4 * IMAGE_PX
) -> tuple[Path, ...]:
    """Write ``photo.png``, ``pose.png`` and ``depth.png`` of one rendered shot into ``folder``."""
    shot = Shot(yaw_deg=yaw_deg, pitch_deg=pitch_deg, seed=seed)
    drawn = render(Person.from_seed(seed), shot, side_px)
    images = {
        "photo": Image.fromarray(drawn.image),
        "pose": pose_image(drawn.landmarks, side_px, side_px),
        "depth": depth_image(drawn.depth),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        save_clean_png(image, folder / f"{name}.png")
    return tuple(folder / f"{name}.png" for name in images)
