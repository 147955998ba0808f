"""Alignment is exact: a known similarity is recovered, a dot lands on the template to a part of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oblik.errors import InvalidInput
from oblik.faces.align import (
    ARCFACE_52,
    Affine_23,
    align_112,
    face_box,
    inverse,
    scale_of,
    similarity,
    transform,
    warp,
)

still = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def turned(scale: float, angle: float, x: float, y: float) -> Affine_23:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


similarities = st.builds(
    turned, st.floats(0.05, 20), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500)
)


@still
@given(similarities)
def test_a_known_similarity_is_recovered(affine: Affine_23) -> None:
    found = similarity(ARCFACE_52, transform(affine, ARCFACE_52))
    np.testing.assert_allclose(found, affine, rtol=1e-6, atol=1e-4)
    assert scale_of(found) == pytest.approx(scale_of(affine), rel=1e-6)


@still
@given(similarities)
def test_inverse_undoes(affine: Affine_23) -> None:
    there = transform(affine, ARCFACE_52)
    np.testing.assert_allclose(transform(inverse(affine), there), ARCFACE_52, atol=1e-3)


def test_a_mirror_image_is_not_taken_for_a_turn() -> None:
    mirrored = ARCFACE_52 * np.array([-1, 1])
    found = similarity(ARCFACE_52, mirrored)
    assert np.linalg.det(found[:, :2]) > 0


def test_least_squares_beats_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    target = ARCFACE_52 + rng.normal(0, 3, (5, 2))
    found = similarity(ARCFACE_52, target)

    def error(affine: Affine_23) -> float:
        return float(((transform(affine, ARCFACE_52) - target) ** 2).sum())

    for _ in range(50):
        nudge = turned(1 + rng.normal(0, 0.01), rng.normal(0, 0.01), *rng.normal(0, 0.3, 2))
        moved = np.concatenate([nudge[:, :2] @ found[:, :2], found[:, 2:] + nudge[:, 2:]], axis=1)
        assert error(moved) >= error(found)


def test_coinciding_landmarks_are_refused() -> None:
    with pytest.raises(InvalidInput):
        similarity(np.ones((5, 2)), ARCFACE_52)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.7, 9.0])
def test_every_landmark_lands_on_the_template(scale: float) -> None:
    size = int(160 * scale)
    landmarks = transform(turned(scale, 0.3, 40 * scale, 10 * scale), ARCFACE_52).astype(np.float32)
    rows, columns = np.mgrid[0:size, 0:size]
    for point, wanted in zip(landmarks, ARCFACE_52, strict=True):
        dot = 255 * np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * (2.5 * scale) ** 2))
        image = np.repeat(dot.astype(np.uint8)[..., None], 3, axis=2)
        aligned = align_112(image, landmarks)[..., 0].astype(float)
        assert aligned.shape == (112, 112)
        y, x = np.mgrid[0:112, 0:112]
        centre = np.array([(aligned * x).sum(), (aligned * y).sum()]) / aligned.sum()
        np.testing.assert_allclose(centre, wanted, atol=0.12)


def test_strong_reduction_does_not_alias() -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::5] = 255
    reduced = warp(stripes, np.array([[0.09, 0, 0], [0, 0.09, 0]]), 72, 72)[5:-5, 5:-5]
    assert np.ptp(reduced.astype(int)) <= 40
    assert abs(reduced.mean() - 51) < 2


@still
@given(similarities)
def test_the_box_holds_the_landmarks_and_scales_with_the_face(affine: Affine_23) -> None:
    landmarks = transform(affine, ARCFACE_52).astype(np.float32)
    left, top, right, bottom = face_box(landmarks)
    assert (landmarks > [left, top]).all()
    assert (landmarks < [right, bottom]).all()
    assert right - left == pytest.approx(76 * scale_of(affine), rel=1e-3)
