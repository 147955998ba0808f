"""Letterboxing keeps geometry, windows leave no gap, overlapping finds are one face."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oblik.faces.align import ARCFACE_52, face_box, transform
from oblik.faces.stack import Face
from oblik.faces.windows import around, corner, distinct, overlap, plausible, scan, to_input, whole

still = settings(derandomize=True, database=None, deadline=None, max_examples=40)


@still
@given(st.integers(20, 4000), st.integers(20, 4000))
def test_letterboxing_shows_the_whole_picture_unstretched(width: int, height: int) -> None:
    affine = to_input(whole(width, height), 128)
    assert affine[0, 0] == affine[1, 1]
    edges = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    (left, top), (right, bottom) = transform(affine, edges)
    assert max(right - left, bottom - top) == pytest.approx(128)
    assert left + right == pytest.approx(127)
    assert top + bottom == pytest.approx(127)


@still
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_the_corner_shows_the_whole_picture_unstretched(width: int, height: int) -> None:
    affine, wide_px, high_px = corner(width, height, 640.0)
    assert affine[0, 0] == affine[1, 1]
    assert max(wide_px, high_px) == 640
    edges = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    (left, top), (right, bottom) = transform(affine, edges) + 0.5
    assert (left, top) == pytest.approx((0, 0), abs=1e-9)
    assert abs(right - wide_px) < 1
    assert abs(bottom - high_px) < 1


def test_identity_when_the_picture_is_the_input() -> None:
    np.testing.assert_allclose(to_input(whole(128, 128), 128), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


@still
@given(st.integers(64, 900), st.integers(64, 900))
def test_windows_cover_the_picture_at_every_scale(width: int, height: int) -> None:
    windows = scan(width, height, 64)
    for side in {w[2] for w in windows}:
        covered = np.zeros((height, width), int)
        for x, y, _ in (w for w in windows if w[2] == side):
            left, top = x - (side - 1) / 2, y - (side - 1) / 2
            assert left >= -0.51
            assert top >= -0.51
            rows = slice(max(round(top), 0), round(top + side))
            covered[rows, max(round(left), 0) : round(left + side)] += 1
        assert covered.min() >= 1
    assert len(windows) < 400 * max(width, height) / min(width, height)


def test_small_pictures_are_not_blown_up() -> None:
    assert scan(60, 60, 64) == []
    assert {w[2] for w in scan(128, 128, 64)} == {128.0, 76.8}


def face(x: float, score: float) -> Face:
    landmarks = (ARCFACE_52 + np.array([x, 0])).astype(np.float32)
    return Face(face_box(landmarks), landmarks, score)


def test_overlapping_finds_are_one_face() -> None:
    kept = distinct([face(0, 0.5), face(8, 0.9), face(200, 0.7)])
    assert [f.score for f in kept] == [0.9, 0.7]


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == pytest.approx(1)
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 2)
    assert overlap((0, 0, 9, 9), (3, 3, 5, 5)) == pytest.approx(1)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0


def test_the_second_look_is_centred_on_the_face() -> None:
    x, y, side = around((10, 20, 50, 80), 2.2)
    assert (x, y) == (30, 50)
    assert side == pytest.approx(88)


def test_what_can_be_a_face() -> None:
    assert plausible(ARCFACE_52)
    profile = ARCFACE_52 * np.array([0.3, 1], np.float32) + np.array(
        [[0, 0], [0, 0], [14, 0], [0, 0], [0, 0]]
    )
    assert plausible(profile.astype(np.float32))
    assert not plausible(ARCFACE_52[[1, 0, 2, 4, 3]])
    assert not plausible(np.zeros((5, 2), np.float32))
