"""Peaks are found to a small part of a pixel, wherever they lie and however wide they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oblik.faces.heatmaps import decode, peak, sigmoid

still = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def gaussian(x: float, y: float, sigma: float, height: float = 0.9, size: int = 32) -> NDArray[np.float64]:
    rows, columns = np.mgrid[0:size, 0:size]
    return np.asarray(height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)))


@still
@given(st.floats(0, 31), st.floats(0, 31), st.floats(0.8, 3.0), st.floats(0.2, 0.99))
def test_a_gaussian_is_located_exactly(x: float, y: float, sigma: float, height: float) -> None:
    found_x, found_y, found_height = peak(gaussian(x, y, sigma, height))
    assert (found_x, found_y) == pytest.approx((x, y), abs=0.02)
    assert 0.5 * height < found_height <= height


def test_noise_costs_little() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(8, 24, (200, 2))
    noisy = [np.clip(gaussian(x, y, 1.5) + rng.normal(0, 0.03, (32, 32)), 1e-4, 1) for x, y in places]
    off = [np.hypot(*(np.array(peak(m)[:2]) - place)) for m, place in zip(noisy, places, strict=True)]
    assert np.mean(off) < 0.06


def test_a_flat_map_is_no_error() -> None:
    x, y, height = peak(np.full((16, 16), 1e-3))
    assert np.isfinite([x, y]).all()
    assert height == pytest.approx(1e-3)


def test_decode_takes_logits() -> None:
    places = np.array([[5.25, 6.5], [20.75, 7.0], [13.0, 14.3], [8.1, 22.0], [19.0, 23.9]])
    maps = np.clip(np.stack([gaussian(x, y, 1.5) for x, y in places]), 1e-6, 1 - 1e-6)
    points, peaks = decode(np.log(maps / (1 - maps)).astype(np.float32))
    np.testing.assert_allclose(points, places, atol=0.02)
    assert ((peaks > 0.7) & (peaks <= 0.9)).all()


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])
