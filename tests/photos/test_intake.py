"""Hostile folders: each bad file gets a reason, each readable one its pixels and nothing else."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.photos.pictures import FORMATS, encoded, picture

from oblik.errors import NotFound
from oblik.photos.intake import identify, list_files, read_photo, take


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


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, keep: float) -> None:
    content = encoded(kind, NOISE)
    (tmp_path / f"a.{kind}").write_bytes(content[: int(len(content) * keep)])
    assert any(word in why(tmp_path / f"a.{kind}") for word in ("cut off", "damaged", "not a picture"))


@pytest.mark.parametrize("kind", FORMATS)
def test_corrupt_files_are_refused_or_read_but_never_fatal(tmp_path: Path, kind: str) -> None:
    content = encoded(kind, NOISE)
    file, junk = tmp_path / f"a.{kind}", np.random.default_rng(1).bytes(len(content))
    file.write_bytes(junk)
    assert "not a picture" in why(file)
    file.write_bytes(content[:2] + junk[2:64] + content[64:])
    assert any(word in why(file) for word in ("damaged", "not a picture", "cut off", "too many", "strip"))
    middle = len(content) // 2
    file.write_bytes(content[:middle] + junk[:40] + content[middle + 40 :])
    assert not why(file) or "damaged" in why(file) or "cut off" in why(file)


def test_heif_by_its_other_ending(tmp_path: Path) -> None:
    (tmp_path / "a.HEIF").write_bytes(encoded("heic", picture(128, 96)))
    found, image = take(identify(tmp_path, tmp_path / "a.HEIF"), tmp_path / "a.HEIF")
    assert (found.refused, found.notes) == ("", ())
    assert image is not None


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
    (tmp_path / "bomb.gif").write_bytes(
        b"GIF89a" + struct.pack("<HHBBB6x", 60_000, 60_000, 0x80, 0, 0)
        + struct.pack("<cHHHHB", b",", 0, 0, 60_000, 60_000, 0) + b"\2\2\x44\1\0;"
    )  # fmt: skip
    assert "many" in why(tmp_path / "bomb.gif")


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
    ("mode", "name", "note"),
    [
        ("CMYK", "a.jpg", "CMYK converted to sRGB"), ("L", "a.jpg", "greyscale"), ("1", "a.png", "greyscale"),
        ("P", "a.png", ""), ("CMYK", "a.tif", "CMYK converted to sRGB"),
        ("LA", "a.png", "greyscale; transparent parts made white"),
    ],
)  # fmt: skip
def test_colour_modes_become_rgb(tmp_path: Path, mode: str, name: str, note: str) -> None:
    file = saved(tmp_path, name, picture(mode=mode))
    found, image = take(identify(tmp_path, file), file)
    assert "; ".join(found.notes) == note
    assert image is not None
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_become_eight_without_clipping(tmp_path: Path, name: str) -> None:
    ramp = np.linspace(0, 65535, 96 * 80).reshape(80, 96).astype(np.uint16)
    pixels = np.asarray(read_photo(saved(tmp_path, name, Image.fromarray(ramp))))
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
    long = "ф" * 125 + "x.png"
    assert len(long.encode()) == 255
    saved(tmp_path / "день рождения" / "deep", long)
    saved(tmp_path, "b.png")
    saved(tmp_path / ".hidden", "no.png")
    saved(tmp_path, "._b.png")
    (tmp_path / "captions.csv").write_text("", encoding="utf-8")
    (tmp_path / "b.txt").write_text("smiling", encoding="utf-8")
    files = list_files(tmp_path)
    assert [identify(tmp_path, file).source for file in files] == ["b.png", f"день рождения/deep/{long}"]


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder with a file and a folder that this process, which is not root for once, cannot open."""
    folder, root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    saved(folder, "a.png").chmod(0)
    (folder / "inner").mkdir()
    saved(folder / "inner", "b.png")
    (folder / "inner").chmod(0)
    folder.chmod(0o755)
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    (folder / "inner").chmod(0o700)
    shutil.rmtree(folder)


def test_what_cannot_be_opened_has_a_row(locked: Path) -> None:
    rows = {file.name: identify(locked, file) for file in list_files(locked)}
    assert "cannot be read" in rows["a.png"].refused
    assert rows["inner"].refused == "a folder that cannot be opened"
    assert not any(row.sha256 for row in rows.values())


def test_a_file_that_goes_away_has_a_row(tmp_path: Path) -> None:
    file = saved(tmp_path, "a.png")
    found = identify(tmp_path, file)
    file.unlink()
    assert identify(tmp_path, file).refused == "cannot be read"
    assert take(found, file)[0].refused


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        list_files(tmp_path / "nowhere")


def test_a_name_that_is_not_unicode_can_be_written_down(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(saved(tmp_path, "a.png").rename(tmp_path / ".a.png").read_bytes())
    (file,) = list_files(tmp_path)
    identify(tmp_path, file).source.encode("utf-8")
