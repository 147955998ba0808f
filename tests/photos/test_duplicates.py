"""Duplicates, bursts and strangers on sets whose truth is known."""

from __future__ import annotations

import io
from datetime import datetime, timedelta

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from oblik.photos.duplicates import Look, appearance, group_photos
from oblik.photos.identity import find_identity, same_person

NOON = datetime(2026, 5, 1, 12)
F32 = NDArray[np.float32]


def scene(seed: int) -> Image.Image:
    """A smooth random picture with some detail."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.integers(20, 235, (7, 9, 3), dtype=np.uint8), (240, 180), interpolation=cv2.INTER_CUBIC
    )
    return Image.fromarray(np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8))


def unit(vector: NDArray[np.floating]) -> F32:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def person(seed: int, photos: int, spread: float = 0.6, dims: int = 64) -> list[F32]:
    """Embeddings of one person: a direction and some noise."""
    rng = np.random.default_rng([seed, 7])
    centre = unit(rng.normal(size=dims))
    return [unit(centre + spread * unit(rng.normal(size=dims))) for _ in range(photos)]


POINTS = np.array([[-0.5, -0.35], [0.5, -0.35], [0, 0.2], [-0.36, 0.72], [0.36, 0.72]])


def points(image: Image.Image, at: tuple[float, float] = (0.5, 0.5), unit: float = 0.14) -> F32:
    """Landmarks in the middle of the picture; ``unit`` is a part of its height."""
    middle = np.array([image.width * at[0], image.height * at[1]])
    return np.asarray(POINTS * unit * image.height + middle, np.float32)


def look(
    image: Image.Image, embedding: F32, at: datetime | None = None, sharpness: float = 1.0,
    landmarks: F32 | None = None,
) -> Look:  # fmt: skip
    pixels = np.asarray(image.convert("RGB"))
    return Look(
        appearance(pixels, points(image) if landmarks is None else landmarks), at, sharpness, embedding
    )


def reencoded(image: Image.Image, quality: int = 50) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "change",
    [
        reencoded, lambda image: image.resize((168, 126), Image.Resampling.BICUBIC), ImageOps.mirror,
        lambda image: ImageEnhance.Brightness(image).enhance(0.85),
        lambda image: ImageEnhance.Brightness(image).enhance(1.15),
        lambda image: image.convert("L").convert("RGB"),
    ],
)  # fmt: skip
def test_changed_copies_are_duplicates(change: object) -> None:
    assert callable(change)
    (face,) = person(1, 1)
    for seed in range(5):
        kept = group_photos([look(scene(seed), face, sharpness=2.0), look(change(scene(seed)), face)])
        assert (kept[0].beaten_by, kept[1].beaten_by, kept[1].kind) == (None, 0, "duplicate")


def test_a_cropped_copy_is_a_duplicate() -> None:
    (face,) = person(1, 1)
    whole = scene(3)
    cut = whole.crop((12, 9, 240, 180))
    moved = np.asarray(points(whole) - (12, 9), np.float32)
    kept = group_photos([look(whole, face), look(reencoded(cut, 85), face, landmarks=moved)])
    assert kept[1].beaten_by == 0


def test_landmarks_may_be_off_by_a_pixel_or_two() -> None:
    (face,) = person(1, 1)
    off = np.asarray(points(scene(4)) + np.random.default_rng(1).normal(0, 0.8, (5, 2)), np.float32)
    kept = group_photos([look(scene(4), face), look(reencoded(scene(4)), face, landmarks=off)])
    assert kept[1].beaten_by == 0


def test_different_pictures_of_one_person_are_not() -> None:
    looks = [look(scene(seed), face) for seed, face in enumerate(person(1, 40, spread=0.2))]
    kept = group_photos(looks)
    assert all(one.beaten_by is None for one in kept)
    assert len({one.group for one in kept}) == 40


def test_nothing_to_group() -> None:
    assert group_photos([]) == []


def test_of_a_burst_the_sharpest_stays() -> None:
    faces = person(1, 4)
    moments = [NOON, NOON + timedelta(seconds=2), NOON + timedelta(seconds=4), NOON + timedelta(seconds=40)]
    looks = [look(scene(i), faces[i], moments[i], sharpness=[3.0, 9.0, 5.0, 1.0][i]) for i in range(4)]
    kept = group_photos(looks, same_face=0.6)
    assert [one.beaten_by for one in kept] == [1, None, 1, None]
    assert [one.kind for one in kept] == ["burst", "", "burst", ""]
    assert [one.group for one in kept] == [0, 0, 0, 1]


def test_two_people_in_one_second_are_no_burst() -> None:
    looks = [look(scene(0), person(1, 1)[0], NOON), look(scene(1), person(2, 1)[0], NOON)]
    assert [one.beaten_by for one in group_photos(looks, same_face=0.5)] == [None, None]


def test_what_two_strangers_reach_comes_from_impostors() -> None:
    rng = np.random.default_rng(0)
    impostors = np.stack([unit(rng.normal(size=64)) for _ in range(1200)])
    assert 0.2 < same_person(impostors) < 0.4
    assert same_person(None) == same_person(impostors[:20]) == -1.0


def test_no_capture_time_is_no_burst() -> None:
    faces = person(1, 2, spread=0.1)
    assert all(one.beaten_by is None for one in group_photos([look(scene(i), faces[i]) for i in range(2)]))


def test_equals_keep_the_first() -> None:
    (face,) = person(1, 1)
    kept = group_photos([look(scene(0), face), look(scene(0), face), look(scene(0), face)])
    assert [one.beaten_by for one in kept] == [None, 0, 0]


@pytest.mark.parametrize("strangers", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_strangers_are_found_without_a_threshold(strangers: int, seed: int) -> None:
    faces = [face[None] for face in person(seed, 36)]
    faces += [person(100 + seed * 10 + i, 1)[0][None] for i in range(strangers)]
    identity = find_identity(faces)
    assert [identity.is_stranger(i) for i in range(len(faces))] == [False] * 36 + [True] * strangers


def test_a_second_person_who_comes_often_is_set_aside() -> None:
    faces = [face[None] for face in [*person(1, 20), *person(2, 9)]]
    identity = find_identity(faces)
    assert [identity.is_stranger(i) for i in range(29)] == [False] * 20 + [True] * 9


def test_impostors_place_the_threshold() -> None:
    rng = np.random.default_rng(0)
    impostors = np.stack([unit(rng.normal(size=64)) for _ in range(2000)])
    faces = [face[None] for face in [*person(1, 20), *person(2, 2)]]
    identity = find_identity(faces, impostors)
    assert np.mean(impostors @ identity.centroid_D >= identity.threshold) == pytest.approx(0.05, abs=0.002)
    assert "impostors" in identity.source
    assert [identity.is_stranger(i) for i in range(22)] == [False] * 20 + [True] * 2


def test_the_makers_threshold_serves_where_all_faces_are_alike() -> None:
    """Embeddings that crowd, as dlib's do: strangers above 0.8, so no gap is wide; the persona above 0.95."""
    common = unit(np.ones(64))
    faces = [
        unit(common + 0.4 * face)[None] for face in [*person(1, 20, spread=0.5), *person(2, 1), *person(3, 1)]
    ]
    assert float(faces[0][0] @ faces[20][0]) > 0.8
    truth = [False] * 20 + [True] * 2
    blind, told = find_identity(faces), find_identity(faces, told=0.91)
    assert [blind.is_stranger(i) for i in range(22)] != truth
    assert [told.is_stranger(i) for i in range(22)] == truth
    assert "makers" in told.source


def test_in_a_group_photo_the_persona_is_the_face_nearest_to_the_others() -> None:
    mine, theirs = person(1, 12), person(2, 12)
    faces = [np.stack([theirs[i], mine[i]]) if i % 3 == 0 else mine[i][None] for i in range(12)]
    identity = find_identity(faces)
    assert identity.face_of == tuple(1 if i % 3 == 0 else 0 for i in range(12))
    assert not any(identity.is_stranger(i) for i in range(12))


def test_one_photo_is_nobody_strange() -> None:
    assert not find_identity([person(1, 1)[0][None]]).is_stranger(0)
