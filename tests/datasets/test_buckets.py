"""Buckets and crops."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from oblik.datasets.buckets import (
    RATIOS,
    Bucket,
    Crop,
    buckets_of,
    buckets_of_training,
    choose_bucket,
    crop_head,
    crop_middle,
    fit,
    through,
)
from oblik.datasets.writing import cut
from oblik.errors import InvalidInput
from oblik.photos.intake import Found

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


SIDES = st.integers(64, 6000)


@given(SIDES, SIDES, st.integers(8, 6000), st.sampled_from(buckets_of(768, 16)), st.data())
def test_a_reduced_copy_keeps_the_aspect_of_every_pixel(
    width: int, height: int, short: int, bucket: Bucket, data: st.DataObject
) -> None:
    """Photo -> copy of whole pixels -> bucket has one scale, however the copy was rounded."""
    face = points(
        data.draw(st.floats(0, width)), data.draw(st.floats(0, height)), data.draw(st.floats(4, 900))
    )
    crop = crop_head(face, width, height, bucket)
    ratio = min(1.0, short / min(width, height))
    reduced = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    shrink = [reduced[0] / width, reduced[1] / height]
    to_copy_33 = np.diag([*shrink, 1.0])
    to_copy_33[:2, 2] = [(s - 1) / 2 for s in shrink]
    whole = through(crop, (width, height), reduced) @ to_copy_33
    assert whole == pytest.approx(crop.affine(), abs=1e-6 * max(1.0, abs(crop.affine()).max()))
    assert whole[0, 0] == pytest.approx(whole[1, 1], rel=1e-9)


@given(SIDES, SIDES, st.floats(1, 900), st.sampled_from(buckets_of(768, 16)))
def test_the_head_with_its_margin_is_inside_whenever_the_photo_is_large_enough(
    width: int, height: int, unit: float, bucket: Bucket
) -> None:
    crop = crop_head(points(width / 2, height / 2, unit), width, height, bucket)
    room = crop.height < min(height, width / bucket.ratio) - 1e-6
    if room:
        assert crop.height >= 1.4 * 3.6 * unit * 0.999
        assert crop.width >= 1.4 * 2.6 * unit * 0.999
    assert crop.left >= -1e-6
    assert crop.top >= -1e-6


@pytest.mark.parametrize("size", [(1003, 757), (641, 1279)])
def test_a_disc_stays_a_disc(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    x, y = size[0] / 2, size[1] / 2
    ImageDraw.Draw(image).ellipse((x - 150, y - 150, x + 150, y + 150), fill="black")
    image.save(tmp_path / "a.jpg", quality=95)
    bucket = buckets_of(96, 16, ["3:4"])[0]
    crop = crop_middle(*size, bucket)
    pixels = cut(tmp_path / "a.jpg", Found("a.jpg", "0", width_px=size[0], height_px=size[1]), crop, bucket)
    dark_HW = 1.0 - pixels.mean(axis=2) / 255.0
    rows, columns = np.mgrid[: dark_HW.shape[0], : dark_HW.shape[1]]
    spread = [
        float(np.sqrt(np.average((axis - np.average(axis, weights=dark_HW)) ** 2, weights=dark_HW)))
        for axis in (columns, rows)
    ]
    assert spread[0] / spread[1] == pytest.approx(1, abs=0.01)


def test_a_pack_may_have_several_resolutions() -> None:
    names = [bucket.name for bucket in buckets_of_training(768, 16, {})]
    assert names == list(RATIOS)
    found = buckets_of_training(768, 16, {"buckets": ["1:1", "3:4"], "resolutions_px": [512, 768]})
    assert [(b.name, b.width_px, b.height_px) for b in found] == [
        ("1:1", 768, 768),
        ("3:4", 768, 1024),
        ("1:1@512", 512, 512),
        ("3:4@512", 512, 688),
    ]
    assert found[3].folder == "3x4-512"
    smallest = choose_bucket(3000, 4000, found)
    assert smallest.name == "3:4@512"
    for unit, name in ((400, "3:4"), (140, "3:4@512"), (20, "3:4@512")):
        bucket, crop = fit(points(1500, 2000, unit), 3000, 4000, smallest, found)
        assert bucket.name == name
        assert isinstance(crop, Crop)
    with pytest.raises(InvalidInput):
        buckets_of(128, 16, ["1:1@big"])
