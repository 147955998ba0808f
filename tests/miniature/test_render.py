"""The renderer: fixed, well formed, and different people look different."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from oblik.miniature.people import Person
from oblik.miniature.render import Rendering, render
from oblik.miniature.shots import Shot

PERSON_WORDS = {
    "gender": {"man", "woman"},
    "age": {"young", "middle-aged", "old"},
    "skin": {"fair", "tan", "brown", "dark"},
    "hair_color": {"black", "brown", "blond", "red", "gray"},
    "hair_style": {"short", "long", "curly", "bun", "bald", "bob"},
    "beard": {"none", "stubble", "beard"},
    "eyes": {"blue", "green", "brown", "gray"},
}


def portrait(seed: int, size: int | tuple[int, int] = 128) -> Rendering:
    return render(Person.from_seed(seed), Shot.portrait(np.random.default_rng(seed)), size)


def test_same_seed_same_pixels() -> None:
    rng = np.random.default_rng
    shot = Shot.sample(rng(4))
    first, second = render(Person.from_seed(5), shot), render(Person.from_seed(5), Shot.sample(rng(4)))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.landmarks, second.landmarks)
    assert Person.from_seed(5) == Person.from_seed(5) != Person.from_seed(6)


@pytest.mark.parametrize("size", [96, (120, 160), (160, 90), 300])
def test_shapes_and_ranges(size: int | tuple[int, int]) -> None:
    width, height = (size, size) if isinstance(size, int) else size
    r = portrait(3, size)
    assert r.image.shape == (height, width, 3)
    assert r.image.dtype == np.uint8
    assert r.face_mask.shape == r.depth.shape == (height, width)
    assert set(np.unique(r.face_mask)) == {0, 255}
    assert r.depth.dtype == np.float32
    assert r.depth.min() == 0.0
    assert 0.5 < r.depth.max() <= 1.0
    assert r.landmarks.shape == (5, 2)
    assert r.landmarks.dtype == np.float32
    assert r.image.std() > 20


def test_landmarks_are_inside_ordered_and_on_the_face() -> None:
    for seed in range(12):
        r = portrait(seed)
        left, right, nose, mouth_left, mouth_right = r.landmarks
        assert (r.landmarks > 0).all()
        assert (r.landmarks < 128).all()
        assert left[0] + 8 < right[0]
        assert mouth_left[0] + 4 < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        for x, y in r.landmarks[:3]:
            assert r.face_mask[int(y), int(x)] == 255


def test_eyes_are_where_the_landmarks_say() -> None:
    r = portrait(9, 384)
    grey = r.image.astype(float).mean(2)
    for x, y in r.landmarks[:2].astype(int):
        around = grey[y - 5 : y + 6, x - 5 : x + 6]
        cheek = grey[y + 30 : y + 36, x - 5 : x + 6]
        assert around.min() < 0.5 * cheek.mean()


def test_a_covered_face_has_a_smaller_mask() -> None:
    shot = Shot.portrait(np.random.default_rng(1))
    bare = render(Person.from_seed(8), shot).face_mask
    masked = render(Person.from_seed(8), replace(shot, mask=True)).face_mask
    assert masked.sum() < 0.75 * bare.sum()


def test_turning_moves_the_nose() -> None:
    shot = replace(Shot.portrait(np.random.default_rng(2)), roll_deg=0.0)
    noses = []
    for yaw in (-40.0, 0.0, 40.0):
        marks = render(Person.from_seed(2), replace(shot, yaw_deg=yaw)).landmarks
        noses.append(float(marks[2, 0] - marks[:2, 0].mean()))
    assert noses[0] < -4
    assert abs(noses[1]) < 2
    assert noses[2] > 4


def test_people_differ_more_than_photos_of_one() -> None:
    shot = Shot(seed=7)
    faces = [render(Person.from_seed(s), shot).image.astype(float) for s in range(14)]
    between = [np.abs(a - b).mean() for i, a in enumerate(faces) for b in faces[:i]]
    nudged = render(Person.from_seed(0), replace(shot, yaw_deg=1.0)).image.astype(float)
    assert min(between) > 2.5
    assert np.mean(between) > 3 * np.abs(faces[0] - nudged).mean()


def test_words() -> None:
    for seed in range(60):
        words = Person.from_seed(seed).descriptors
        assert set(words) == set(PERSON_WORDS)
        assert all(words[k] in PERSON_WORDS[k] for k in words)
    shot = Shot.sample(np.random.default_rng(0), stress=True)
    merged = render(Person.from_seed(1), shot).descriptors
    assert merged == {**Person.from_seed(1).descriptors, **shot.descriptors}
    assert Shot(yaw_deg=80).view == "profile"
    assert Shot(yaw_deg=-30).view == "three-quarter"


def test_hard_shots_draw() -> None:
    for i in range(12):
        r = render(Person.from_seed(i), Shot.sample(np.random.default_rng(i), stress=True), 112)
        assert np.isfinite(r.landmarks).all()
        assert (r.depth > 0).mean() > 0.08


def test_speed_is_sane() -> None:
    shots = [Shot.sample(np.random.default_rng(i)) for i in range(10)]
    person = Person.from_seed(77)
    render(person, shots[0])
    start = time.process_time()
    for shot in shots:
        render(person, shot)
    rate = len(shots) / (time.process_time() - start)
    print(f"{rate:.1f} images/s at 128 px")
    assert rate > 0.8
