"""Each thing that may be wrong with a photo is said with its number; an ordinary one is left in peace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from tests.photos.pictures import picture

from oblik.faces.stack import Face
from oblik.miniature.people import Person
from oblik.miniature.render import Rendering, render
from oblik.miniature.shots import Shot
from oblik.photos.flags import flags_of
from oblik.photos.intake import identify, take
from oblik.photos.quality import Quality, measure

FOCAL_35MM = 0xA405
SHORT_PX = 480


def portrait(number: int = 0) -> Rendering:
    """A person in even light, without anything on the face."""
    shot = replace(
        Shot.portrait(np.random.default_rng(3)), light="studio", yaw_deg=4.0, glasses=False, hat=False,
        scarf=False, mask=False, hand=False, sunglasses=False,
    )  # fmt: skip
    return render(Person.from_seed(812_000 + number), shot, (SHORT_PX, 600))


@pytest.fixture(scope="module")
def people() -> list[Rendering]:
    return [portrait(number) for number in range(3)]


def quality(image: NDArray[np.uint8], drawn: Rendering, focal_35mm: float = 0.0) -> Quality:
    points = np.asarray(drawn.landmarks, np.float32)
    return measure(image, Face((0, 0, 1, 1), points, 0.95), focal_35mm=focal_35mm)


def flags(image: NDArray[np.uint8], drawn: Rendering, focal_35mm: float = 0.0) -> str:
    measured = quality(image, drawn, focal_35mm)
    return "; ".join(flags_of(measured, short_side_px=SHORT_PX, wanted_px=SHORT_PX))


def changed(how: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if how == "blurred":
        return np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)
    if how == "smoothed":  # a beauty filter: skin without pores, edges as they were
        for _ in range(3):
            image = np.asarray(cv2.bilateralFilter(image, 9, 30, 7), np.uint8)
        return image
    if how in ("dark", "bright"):
        return np.asarray(image * 0.15 if how == "dark" else 255 - (255 - image) * 0.1, np.uint8)
    if how == "burnt":
        return np.asarray(np.clip((image.astype(float) - 110) * 9, 0, 255), np.uint8)
    drawn = Image.fromarray(image)
    if how == "vivid":
        return np.asarray(ImageEnhance.Color(drawn).enhance(4.0))
    return np.asarray(
        ImageOps.grayscale(drawn).convert("RGB") if how == "grey" else ImageOps.posterize(drawn, 3)
    )


def test_an_ordinary_photo_has_no_flag(people: list[Rendering]) -> None:
    assert [flags(drawn.image, drawn, focal_35mm=50.0) for drawn in people] == ["", "", ""]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("blurred", "soft (sharpness "), ("smoothed", "perhaps retouched (texture 0.0"),
        ("dark", "a dark face (brightness 0.0"), ("bright", "a very bright face (brightness 0.9"),
        ("burnt", "of the face is pure black or white (at most 25%)"),
        ("vivid", "strong colours, perhaps a filter (saturation 0."),
        ("grey", "black and white (saturation 0.00"),
        ("poster", "few tones, perhaps a filter ("),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_number(people: list[Rendering], how: str, said: str) -> None:
    for drawn in people:
        assert said in flags(changed(how, drawn.image), drawn)


def test_small_faces_and_small_pictures(people: list[Rendering]) -> None:
    measured = replace(quality(people[0].image, people[0]), unit_px=31.6)
    assert flags_of(measured, short_side_px=500, wanted_px=768) == (
        "a small picture (short side 500 px, 768 are better)",
        "a small face (32 px between the eyes, 60 are better)",
    )


def test_a_camera_that_was_too_near_is_said(people: list[Rendering]) -> None:
    drawn = people[0]
    near = quality(drawn.image, drawn, focal_35mm=13.0)
    assert quality(drawn.image, drawn).distance_m == 0.0
    assert near.distance_m == pytest.approx(quality(drawn.image, drawn, 26.0).distance_m / 2)
    assert 0.05 < near.distance_m < 0.4
    assert f"taken from {100 * near.distance_m:.0f} cm" in flags(drawn.image, drawn, 13.0)


def test_the_focal_length_is_read_from_the_file(tmp_path: Path) -> None:
    found = []
    for number, millimetres in enumerate((24, 0, 60_000)):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[FOCAL_35MM] = millimetres
        file = tmp_path / f"{number}.jpg"
        picture().save(file, exif=exif)
        found.append(take(identify(tmp_path, file), file)[0].focal_35mm)
    assert found == [24.0, 0.0, 0.0]
