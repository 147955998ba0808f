"""The mask follows the face: it covers the landmarks, turns and scales with them, and is soft."""

from __future__ import annotations

import numpy as np
import pytest

from oblik.faces.align import ARCFACE_52
from oblik.faces.masks import ELLIPSE_RADII_2, face_mask


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
