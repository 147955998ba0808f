"""Buckets and crops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.datasets.buckets import RATIOS, Bucket, buckets_of, choose_bucket, crop_head
from oblik.errors import InvalidInput

POINTS = np.array([[-0.5, -0.35], [0.5, -0.35], [0, 0.2], [-0.36, 0.72], [0.36, 0.72]])
SQUARE = Bucket("1:1", 128, 128)


def points(x: float, y: float, unit: float) -> NDArray[np.float32]:
    return np.asarray(POINTS * unit + (x, y), np.float32)


@pytest.mark.parametrize(("native", "multiple"), [(128, 16), (768, 16), (1024, 32), (512, 64)])
def test_sides_are_multiples_near_the_ratio(native: int, multiple: int) -> None:
    for bucket in buckets_of(native, multiple):
        across, down = RATIOS[bucket.name]
        assert bucket.width_px % multiple == bucket.height_px % multiple == 0
        assert min(bucket.width_px, bucket.height_px) == native
        assert bucket.ratio == pytest.approx(across / down, rel=0.5 * multiple / native + 0.01)


def test_portrait_and_landscape_are_twins() -> None:
    by_name = {bucket.name: bucket for bucket in buckets_of(768, 16)}
    for one, other in (("3:4", "4:3"), ("2:3", "3:2"), ("9:16", "16:9")):
        assert (by_name[one].width_px, by_name[one].height_px) == (
            by_name[other].height_px,
            by_name[other].width_px,
        )


def test_an_unknown_bucket_is_named() -> None:
    with pytest.raises(InvalidInput, match="'5:4'"):
        buckets_of(128, 16, ["1:1", "5:4"])


@pytest.mark.parametrize(
    ("width", "height", "name"),
    [
        (3000, 4000, "3:4"),
        (4000, 3000, "4:3"),
        (1000, 1000, "1:1"),
        (1080, 1920, "9:16"),
        (2000, 3000, "2:3"),
    ],
)
def test_the_nearest_ratio_wins(width: int, height: int, name: str) -> None:
    assert choose_bucket(width, height, buckets_of(768, 16)).name == name


def test_one_scale_for_both_axes() -> None:
    """No crop ever changes the aspect of a pixel, whatever the photo, the face and the bucket."""
    rng = np.random.default_rng(0)
    for bucket, _ in itertools.product(buckets_of(768, 16), range(60)):
        width, height = (int(side) for side in rng.integers(200, 5000, 2))
        face = points(float(rng.uniform(0, width)), float(rng.uniform(0, height)), float(rng.uniform(5, 900)))
        crop = crop_head(face, width, height, bucket)
        affine = crop.affine()
        assert affine[0, 0] == affine[1, 1]
        assert affine[0, 1] == affine[1, 0] == 0
        assert crop.width * crop.scale == pytest.approx(bucket.width_px)
        assert crop.height * crop.scale == pytest.approx(bucket.height_px)
        assert crop.left >= -1e-6
        assert crop.top >= -1e-6
        assert crop.left + crop.width <= width + 1e-6
        assert crop.top + crop.height <= height + 1e-6


def test_the_head_has_its_margin() -> None:
    crop = crop_head(points(500, 400, 50), 1000, 1000, SQUARE)
    assert crop.height == pytest.approx(1.4 * 3.6 * 50)
    assert crop.left + crop.width / 2 == pytest.approx(500)
    eyes_y = 400 - 0.35 * 50
    assert (eyes_y - crop.top) / crop.height == pytest.approx(0.42)


def test_a_narrow_bucket_still_holds_the_width_of_the_head() -> None:
    (narrow,) = buckets_of(768, 16, ["9:16"])
    crop = crop_head(points(1500, 1500, 100), 3000, 3000, narrow)
    assert crop.width == pytest.approx(1.4 * 2.6 * 100)


def test_the_corners_of_the_crop_are_the_corners_of_the_bucket() -> None:
    crop = crop_head(points(300, 260, 40), 640, 480, SQUARE)
    affine = crop.affine()
    left_top = affine @ [crop.left - 0.5, crop.top - 0.5, 1]
    right_bottom = affine @ [crop.left + crop.width - 0.5, crop.top + crop.height - 0.5, 1]
    assert left_top == pytest.approx([-0.5, -0.5])
    assert right_bottom == pytest.approx([127.5, 127.5])
