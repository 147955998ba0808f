"""The mask follows the face: it covers the landmarks, turns and scales with them, and is soft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from oblik.faces.align import ARCFACE_52
from oblik.faces.masks import ELLIPSE_RADII_2, MOST_TURNED, OUTLINE, SHIFT_PX, face_mask, yaw_of
from oblik.miniature.people import Person
from oblik.miniature.render import Rendering, render
from oblik.miniature.shots import Shot


def test_landmarks_inside_corners_outside() -> None:
    mask = face_mask(ARCFACE_52, 112, 112)
    assert mask.shape == (112, 112)
    assert mask.dtype == np.uint8
    for x, y in ARCFACE_52.round().astype(int):
        assert mask[y, x] == 255
    assert mask[0, 0] == mask[0, -1] == mask[-1, 0] == mask[-1, -1] == 0


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_area_is_that_of_the_ellipse(scale: float) -> None:
    side = int(140 * scale)
    mask = face_mask((ARCFACE_52 + 10.1234) * scale, side, side, feather=0.0)
    assert ((mask > 0) & (mask < 255)).sum() == 0
    area = np.pi * ELLIPSE_RADII_2.prod() * scale**2
    assert (mask > 0).sum() == pytest.approx(area, rel=0.02)


def test_feather_is_symmetric_about_the_outline() -> None:
    hard, soft = (face_mask(ARCFACE_52 + 20, 160, 160, feather=f) for f in (0.0, 0.3))
    assert ((soft > 0) & (soft < 255)).sum() > 1000
    assert ((soft > 127) == (hard > 127)).mean() > 0.995


def test_the_mask_turns_with_the_face() -> None:
    upright = face_mask(ARCFACE_52, 112, 112)
    lying = np.stack([111 - ARCFACE_52[:, 1], ARCFACE_52[:, 0]], axis=1)
    np.testing.assert_allclose(face_mask(lying, 112, 112), np.rot90(upright, -1), atol=1)


def test_grow() -> None:
    assert face_mask(ARCFACE_52, 112, 112, grow=0.5).sum() < 0.3 * face_mask(ARCFACE_52, 112, 112).sum()


PEOPLE = (800_000, 800_001, 800_003)


@pytest.fixture(scope="module")
def heads() -> dict[int, list[Rendering]]:
    """Rendered heads by the angle that they are turned by; where skin and bare background lie is exact."""
    shot = Shot.portrait(np.random.default_rng(5))
    return {
        yaw: [render(Person.from_seed(seed), replace(shot, yaw_deg=float(yaw))) for seed in PEOPLE]
        for yaw in (-40, -25, 0, 25, 40)
    }


def shares(head: Rendering, grow: float) -> tuple[float, float, float]:
    """Overlap with the skin of the face (intersection over union), what of it is covered, and what part of
    the mask lies on bare background."""
    mask = face_mask(head.landmarks, 128, 128, grow=grow) > 127
    skin = head.face_mask > 0
    both = (mask & skin).sum()
    return both / (mask | skin).sum(), both / skin.sum(), (mask & (head.depth == 0)).sum() / mask.sum()


@pytest.mark.parametrize("yaw", [-40, -25, 25, 40])
def test_the_mask_follows_a_head_that_turns_away(heads: dict[int, list[Rendering]], yaw: int) -> None:
    overlap, covered, bare = np.mean([shares(head, OUTLINE) for head in heads[yaw]], axis=0)
    assert overlap > 0.65, "0.63 at 25 degrees and 0.58 at 40 with an ellipse that does not move"
    assert covered > 0.93
    assert bare < 0.11, "0.16 and 0.28 with an ellipse that does not move"


def test_a_frontal_face_has_the_mask_of_the_template(heads: dict[int, list[Rendering]]) -> None:
    for head in heads[0]:
        assert abs(np.degrees(yaw_of(head.landmarks))) < 3
        moved = SHIFT_PX * abs(np.sin(yaw_of(head.landmarks)))
        assert moved * np.ptp(head.landmarks[:2, 0]) / 35 < 1, "pixels of the picture"


def test_landmarks_in_profile_or_in_one_line_still_have_a_mask() -> None:
    profile = ARCFACE_52 + np.array([[20, 0], [-20, 0], [30, 0], [0, 0], [0, 0]], np.float32)
    assert yaw_of(profile) == pytest.approx(MOST_TURNED)
    flat = ARCFACE_52 * np.array([1, 0], np.float32)
    assert face_mask(flat, 112, 112).shape == (112, 112)
