"""Hostile folders: each bad file gets a reason, each readable one its pixels and nothing else."""

from __future__ import annotations

import io
import os
import struct
import zlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from oblik.errors import NotFound
from oblik.photos.intake import identify, list_files, read_photo, take


def picture(width: int = 96, height: int = 80, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right, darker at the bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(1, 0.4, height))
    pixels = np.stack([220 * (1 - x) * y, 40 * y, 220 * x * y], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def saved(folder: Path, name: str, image: Image.Image | None = None, **options: object) -> Path:
    file = folder / name
    (image or picture()).save(file, **options)  # type: ignore[arg-type]
    return file


def why(file: Path) -> str:
    found, image = take(identify(file.parent, file), file)
    assert (image is None) == bool(found.refused)
    return found.refused


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.gif", "a.avif"])
def test_formats_are_read(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path, name)
    found, image = take(identify(tmp_path, file), file)
    assert found.refused == ""
    assert image is not None
    assert (found.width_px, found.height_px) == image.size == (96, 80)
    assert image.mode == "RGB"
    left, right = image.getpixel((5, 5)), image.getpixel((90, 5))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > left[2]
    assert right[2] > right[0]


def test_heic_is_read(tmp_path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(picture(128, 96)).save(tmp_path / "IMG_0001.HEIC")
    found, image = take(identify(tmp_path, tmp_path / "IMG_0001.HEIC"), tmp_path / "IMG_0001.HEIC")
    assert found.refused == ""
    assert image is not None
    assert image.size == (128, 96)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    file = saved(tmp_path, name, noise)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    assert why(file)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("note.jpg", b"this is a letter, not a picture", "not a picture"),
        ("paper.pdf", b"%PDF-1.4 paper", "not a picture"),
        ("script.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in why(tmp_path / name)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert "many" in why(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("width", "height", "reason"), [(900, 1, "small"), (900, 64, "strip"), (30, 30, "small")]
)
def test_strips_and_stamps(tmp_path: Path, width: int, height: int, reason: str) -> None:
    assert reason in why(saved(tmp_path, "a.png", picture(width, height)))


def test_a_wrong_ending_is_read_by_content_and_said(tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png", "JPEG")
    found, _ = take(identify(tmp_path, tmp_path / "photo.png"), tmp_path / "photo.png")
    assert found.notes == ("named .png but is JPEG",)


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp"])
def test_the_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (80, 80), "red"), Image.new("RGB", (80, 80), "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
    found, image = take(identify(tmp_path, tmp_path / name), tmp_path / name)
    assert found.notes == ("only the first of 2 frames is used",)
    assert image is not None
    red, _, blue = image.resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert red > 200 > 50 > blue


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "a.jpg"), ("L", "a.jpg"), ("1", "a.png"), ("P", "a.png")]
)
def test_colour_modes_become_rgb(tmp_path: Path, mode: str, name: str) -> None:
    image = read_photo(saved(tmp_path, name, picture(mode=mode)))
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


def test_sixteen_bits_become_eight_without_clipping(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 96 * 80).reshape(80, 96).astype(np.uint16)
    pixels = np.asarray(read_photo(saved(tmp_path, "a.png", Image.fromarray(ramp))))
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert abs(float(pixels.mean()) - 127.5) < 2


def test_transparency_becomes_white(tmp_path: Path) -> None:
    image = picture(mode="RGBA")
    image.putalpha(0)
    assert np.asarray(read_photo(saved(tmp_path, "a.png", image))).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = picture().transpose(undo[orientation]) if orientation in undo else picture()
    file = saved(tmp_path, "a.jpg", lying, exif=exif, quality=95)
    found, image = take(identify(tmp_path, file), file)
    assert image is not None
    assert (found.width_px, found.height_px) == image.size == (96, 80)
    assert np.abs(np.asarray(image, float) - np.asarray(picture(), float)).mean() < 4


def test_colour_profiles_are_converted(tmp_path: Path) -> None:
    swapped = _srgb().replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    file = saved(tmp_path, "a.png", Image.new("RGB", (80, 80), (120, 90, 60)), icc_profile=swapped)
    assert read_photo(file).getpixel((4, 4)) == (60, 90, 120)
    broken = saved(tmp_path, "b.png", Image.new("RGB", (80, 80), (120, 90, 60)), icc_profile=b"nonsense")
    assert read_photo(broken).getpixel((4, 4)) == (120, 90, 60)


def test_nothing_personal_survives(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Subject at home"
    exif.get_ifd(0x8825)[1] = "N"
    file = saved(tmp_path, "a.jpg", exif=exif, comment=b"secret", icc_profile=_srgb())
    buffer = io.BytesIO()
    image = read_photo(file)
    assert image.info == {}
    assert len(image.getexif()) == 0
    image.save(buffer, "PNG")
    assert b"Subject" not in buffer.getvalue()
    assert b"secret" not in buffer.getvalue()


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("stamp", "subsec", "expected"),
    [
        ("2026:05:01 12:30:59", None, datetime(2026, 5, 1, 12, 30, 59)),
        ("2026:05:01 12:30:59", "25", datetime(2026, 5, 1, 12, 30, 59, 250_000)),
        ("0000:00:00 00:00:00", None, None),
        ("yesterday", None, None),
    ],
)
def test_capture_time(tmp_path: Path, stamp: str, subsec: str | None, expected: datetime | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = stamp
    if subsec:
        exif.get_ifd(0x8769)[0x9291] = subsec
    file = saved(tmp_path, "a.jpg", exif=exif)
    assert take(identify(tmp_path, file), file)[0].captured_at == expected


def test_no_more_pixels_than_asked_for(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.jpg", picture(960, 800), quality=95)
    found, image = take(identify(tmp_path, file), file, short_side_px=100)
    assert image is not None
    assert (found.width_px, found.height_px) == (960, 800)
    assert image.size == (120, 100)
    assert np.abs(np.asarray(image, float) - np.asarray(picture(120, 100), float)).mean() < 4
    assert read_photo(file, short_side_px=5000).size == (960, 800)


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "photos"
    outside.mkdir()
    inside.mkdir()
    saved(outside, "private.png")
    (inside / "link.png").symlink_to(outside / "private.png")
    (inside / "folder").symlink_to(outside)
    (inside / "loop.png").symlink_to(inside / "loop.png")
    reasons = {file.name: identify(inside, file) for file in list_files(inside)}
    assert sorted(reasons) == ["folder", "link.png", "loop.png"]
    assert reasons["link.png"].refused == "a link that leads out of the folder"
    assert reasons["folder"].refused == "a link that leads out of the folder"
    assert all(found.refused and not found.sha256 for found in reasons.values())


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert identify(tmp_path, tmp_path / "pipe.jpg").refused == "not a file"


def test_nested_folders_and_names(tmp_path: Path) -> None:
    (tmp_path / "день рождения" / "deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    long = "ф" * 125 + ".png"
    saved(tmp_path / "день рождения" / "deep", long)
    saved(tmp_path, "b.png")
    saved(tmp_path / ".hidden", "no.png")
    saved(tmp_path, "._b.png")
    (tmp_path / "captions.csv").write_text("", encoding="utf-8")
    (tmp_path / "b.txt").write_text("smiling", encoding="utf-8")
    files = list_files(tmp_path)
    assert [identify(tmp_path, file).source for file in files] == ["b.png", f"день рождения/deep/{long}"]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        list_files(tmp_path / "nowhere")


def test_a_name_that_is_not_unicode_can_be_written_down(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(saved(tmp_path, "a.png").rename(tmp_path / ".a.png").read_bytes())
    (file,) = list_files(tmp_path)
    identify(tmp_path, file).source.encode("utf-8")
