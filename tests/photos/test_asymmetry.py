"""One mole is enough to forbid flips; on rendered faces whose truth is known, and on drawn ones."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.photos.asymmetry import (
    HAIR_LIMIT,
    SPOT_LIMIT,
    Asymmetry,
    Face_HW,
    aligned,
    compared,
    measure_asymmetry,
)


def photographed(person: Person, photos: int = 8) -> Asymmetry:
    rng = np.random.default_rng(7)
    faces: list[Face_HW] = []
    for i in range(photos):
        shot = replace(Shot.portrait(rng), light=("studio", "daylight", "side")[i % 3])
        drawn = render(person, shot, (240, 300))
        faces.append(aligned(drawn.image, np.asarray(drawn.landmarks, np.float32)))
    return measure_asymmetry(faces)


@pytest.mark.parametrize("seed", [800_002, 800_004])
def test_a_mole_stands_out_and_its_absence_does_not(seed: int) -> None:
    plain = replace(Person.from_seed(seed), moles=(), parting=0.0, asym=(0.0, 0.0, 0.0))
    marked = replace(plain, moles=((-0.3, -0.3, 0.022),))
    without, with_one = photographed(plain), photographed(marked)
    assert without.spot is not None
    assert with_one.spot is not None
    assert without.spot < SPOT_LIMIT < with_one.spot
    assert without.flips_allowed
    assert not with_one.flips_allowed
    assert "not possible" in with_one.sentence()
    assert "stay off" in without.sentence()


def drawn(parting: float, seed: int) -> Face_HW:
    """A grey face with noise and dark hair that one side may have more of."""
    rng = np.random.default_rng(seed)
    face = rng.normal(0, 0.01, (152, 128))
    hair = np.zeros((152, 128))
    hair[:60] = -0.4
    hair[20:50, 20:50] += parting
    return np.asarray(face + cv2.GaussianBlur(hair, (0, 0), 2), np.float16)


def test_a_parting_is_measured() -> None:
    even, parted = (measure_asymmetry([drawn(p, i) for i in range(8)]) for p in (0.0, 0.8))
    assert even.hair is not None
    assert parted.hair is not None
    assert even.hair < HAIR_LIMIT < parted.hair
    assert even.flips_allowed
    assert not parted.flips_allowed


def test_without_enough_photos_nothing_is_allowed() -> None:
    few = measure_asymmetry([drawn(0.0, i) for i in range(3)])
    assert not few.flips_allowed
    assert "too few" in few.sentence()


def test_turned_and_distant_heads_are_left_out() -> None:
    image = np.full((200, 200, 3), 120, np.uint8)
    level = np.array([[-0.5, -0.35], [0.5, -0.35], [0, 0.2], [-0.36, 0.72], [0.36, 0.72]], np.float32)
    assert compared(image, level * 40 + 100, yaw_deg=3.0) is not None
    assert compared(image, level * 40 + 100, yaw_deg=-20.0) is None
    assert compared(image, level * 20 + 100, yaw_deg=3.0) is None


def test_of_many_photos_some_are_enough() -> None:
    assert measure_asymmetry([drawn(0.0, i % 5) for i in range(130)]).photos == 44
