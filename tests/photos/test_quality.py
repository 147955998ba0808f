"""Numbers about faces, on drawn faces whose truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.faces.stack import Face
from oblik.photos.quality import face_unit, hardness, light_words, measure, roll_deg, view_words, yaw_deg


def head(yaw: float = 0.0, roll: float = 0.0, unit: float = 60.0, at: float = 150.0) -> NDArray[np.float32]:
    """Five points of a head in three dimensions, turned and projected."""
    points = np.array(
        [[-0.5, -0.35, 0], [0.5, -0.35, 0], [0, 0.2, 0.53], [-0.36, 0.72, 0.05], [0.36, 0.72, 0.05]]
    )
    t, r = np.radians(yaw), np.radians(roll)
    x = points[:, 0] * np.cos(t) + points[:, 2] * np.sin(t)
    flat = np.stack(
        [x * np.cos(r) - points[:, 1] * np.sin(r), x * np.sin(r) + points[:, 1] * np.cos(r)], axis=1
    )
    return (flat * unit + at).astype(np.float32)


def photo(level: float = 0.5, background: float = 0.5, texture: float = 0.1) -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    image = np.full((300, 300), background)
    image[60:240, 60:240] = level + texture * rng.standard_normal((180, 180))
    return np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def face(landmarks: NDArray[np.float32], score: float = 0.95) -> Face:
    return Face((0, 0, 300, 300), landmarks, score)


@pytest.mark.parametrize("yaw", [-80, -50, -25, -10, 0, 10, 25, 50, 80])
@pytest.mark.parametrize("roll", [-20, 0, 20])
def test_yaw_and_roll(yaw: float, roll: float) -> None:
    points = head(yaw, roll)
    assert yaw_deg(points) == pytest.approx(yaw, abs=9)
    assert roll_deg(points) == pytest.approx(roll, abs=8)


@pytest.mark.parametrize(
    ("yaw", "words"),
    [
        (0, {"view": "frontal"}), (-35, {"view": "three-quarter", "side": "left"}),
        (35, {"view": "three-quarter", "side": "right"}), (80, {"view": "profile", "side": "right"}),
    ],
)  # fmt: skip
def test_views(yaw: float, words: dict[str, str]) -> None:
    assert view_words(measure(photo(), face(head(yaw)))) == {**words, "shows": "face"}


def test_turning_the_head_does_not_shrink_the_unit() -> None:
    assert face_unit(head(80)) > 0.9 * face_unit(head(0))


def test_blur_lowers_sharpness_whatever_the_brightness() -> None:
    sharp = measure(photo(), face(head())).sharpness
    soft = measure(cv2.GaussianBlur(photo(), (0, 0), 3), face(head())).sharpness
    dark = measure((photo() * 0.5).astype(np.uint8), face(head())).sharpness
    assert soft < 0.3 * sharp
    assert dark == pytest.approx(sharp, rel=0.15)


def test_sizes_are_in_photo_pixels() -> None:
    quality = measure(photo(), face(head()), scale=4.0)
    assert quality.unit_px == pytest.approx(4 * face_unit(head()))
    assert quality.face_share == pytest.approx(face_unit(head()) / 300)


@pytest.mark.parametrize(
    ("level", "background", "words"),
    [(0.3, 0.3, {"light": "dim"}), (0.4, 0.95, {"light": "backlit"}), (0.6, 0.6, {})],
)
def test_light(level: float, background: float, words: dict[str, str]) -> None:
    assert light_words(measure(photo(level, background, 0.02), face(head()))) == words


def test_warm_light_colours_everything_and_a_suit_does_not() -> None:
    image = photo(0.6, 0.6, 0.02)
    warm = (image * [1.1, 1.0, 0.8]).astype(np.uint8)
    suit = image.copy()
    suit[200:] = [230, 110, 40]
    assert suit[..., 0].mean() > 1.4 * suit[..., 2].mean()
    assert light_words(measure(warm, face(head()))) == {"light": "warm"}
    assert light_words(measure(suit, face(head()))) == {}


def test_ordinary_photos_are_not_hard() -> None:
    assert hardness(measure(photo(0.6, 0.6), face(head()))) == (0.0, "")


@pytest.mark.parametrize(
    ("image", "landmarks", "score", "cause"),
    [
        (photo(0.6, 0.6), head(85), 0.95, "profile"), (photo(0.6, 0.6), head(), 0.4, "unclear"),
        (photo(0.04, 0.05, 0.01), head(), 0.95, "dark"), (photo(0.6, 0.6), head(unit=12), 0.95, "far"),
        (photo(0.3, 0.95), head(), 0.95, "behind"),
    ],
)  # fmt: skip
def test_hard_photos_say_why(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], score: float, cause: str
) -> None:
    how_hard, why = hardness(measure(image, face(landmarks, score)))
    assert how_hard > 0
    assert cause in why


def test_a_face_at_the_rim_is_measured() -> None:
    quality = measure(photo(), face(head(at=5.0)))
    assert np.isfinite(list(quality.numbers().values())).all()
