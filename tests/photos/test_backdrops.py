"""Two photos in one room have one number, two rooms two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oblik.faces.stack import Face
from oblik.photos.backdrops import backdrop_of, same_backdrops


def photo(wall: tuple[int, int, int], floor: tuple[int, int, int], head: int, light: float = 1.0) -> object:
    """A wall over a floor with a head in the middle, a little noise, and the face."""
    image = np.empty((240, 180, 3))
    image[:120], image[120:] = wall, floor
    image[60:180, 55:125] = head
    noisy = image * light + np.random.default_rng(head).normal(0, 4, image.shape)
    pixels: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return backdrop_of(pixels, Face((60, 70, 120, 170), np.zeros((5, 2), np.float32), 0.9))


def test_the_place_counts_and_the_head_does_not() -> None:
    kitchen, garden = ((220, 210, 190), (120, 90, 60)), ((140, 180, 230), (60, 130, 50))
    seen = [
        photo(*kitchen, 90), photo(*garden, 90), photo(*kitchen, 180), photo(*kitchen, 120, light=0.95),
        photo(*garden, 140),
    ]  # fmt: skip
    assert same_backdrops(np.asarray(seen, np.float32)) == [0, 1, 0, 0, 1]  # type: ignore[arg-type]


def test_a_face_over_the_whole_picture_has_a_backdrop() -> None:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    backdrop = backdrop_of(pixels, Face((-40, -40, 160, 160), np.zeros((5, 2), np.float32), 0.9))
    assert np.isfinite(backdrop).all()
    assert same_backdrops([]) == []
