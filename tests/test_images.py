"""Upright sRGB in, pixels and nothing else out."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from oblik.errors import InvalidInput
from oblik.images import data_uri, grid, open_upright, save_clean_png

ORIENTATION, GPS = 0x0112, 0x8825
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The four corner pixels, clockwise from the top left."""
    right, bottom = image.width - 1, image.height - 1
    return [image.getpixel(place) for place in ((0, 0), (right, 0), (right, bottom), (0, bottom))]  # type: ignore[misc]


def test_all_eight_orientations_come_out_upright(tmp_path: Path) -> None:
    upright = Image.new("RGB", (6, 4))
    upright.paste(RED, (0, 0, 3, 2))
    upright.paste(GREEN, (3, 0, 6, 2))
    upright.paste(BLUE, (3, 2, 6, 4))
    turn = Image.Transpose
    stored = {
        1: upright,
        2: upright.transpose(turn.FLIP_LEFT_RIGHT),
        3: upright.transpose(turn.ROTATE_180),
        4: upright.transpose(turn.FLIP_TOP_BOTTOM),
        5: upright.transpose(turn.TRANSPOSE),
        6: upright.transpose(turn.ROTATE_90),
        7: upright.transpose(turn.TRANSVERSE),
        8: upright.transpose(turn.ROTATE_270),
    }
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = tmp_path / f"{orientation}.png"
        image.save(path, exif=exif)
        opened = open_upright(path)
        assert opened.size == (6, 4), orientation
        assert corners(opened) == [RED, GREEN, BLUE, (0, 0, 0)], orientation


def test_transparency_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    image.save(tmp_path / "clear.png")
    palette = image.convert("P")
    palette.info["transparency"] = palette.getpixel((1, 1))
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((1, 1)))
    for name in ("clear.png", "palette.png"):
        opened = open_upright(tmp_path / name)
        assert opened.mode == "RGB"
        assert opened.getpixel((3, 3)) == (255, 255, 255), name


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32_768, np.uint16)).save(tmp_path / "deep.png")
    assert open_upright(tmp_path / "deep.png").getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "F"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("picture.tif" if mode in ("CMYK", "F") else "picture.png")
    Image.new("RGB", (5, 3), (255, 255, 255)).convert("L" if mode in ("1", "F") else "RGB").convert(
        mode
    ).save(path)
    opened = open_upright(path)
    assert (opened.mode, opened.size, opened.getpixel((2, 1))) == ("RGB", (5, 3), (255, 255, 255))


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "swapped.png", icc_profile=swapped)
    opened = open_upright(tmp_path / "swapped.png")
    assert np.abs(np.asarray(opened, np.int16) - (100, 200, 50)).max() <= 3
    assert "icc_profile" not in opened.info


def test_a_broken_colour_profile_is_ignored(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "odd.png", icc_profile=b"no profile")
    assert open_upright(tmp_path / "odd.png").getpixel((0, 0)) == (200, 100, 50)


def test_heic_of_a_phone_opens(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    source = Image.new("RGB", (64, 48), (180, 90, 40))
    pillow_heif.from_pillow(source).save(tmp_path / "phone.heic", quality=95)
    opened = open_upright(tmp_path / "phone.heic")
    assert opened.size == (64, 48)
    assert np.abs(np.asarray(opened, np.int16) - (180, 90, 40)).max() < 8


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "absent"])
def test_what_is_no_picture_is_refused_with_a_hint(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(whole, "JPEG")
    content = {"empty": b"", "text": b"not a picture", "truncated": whole.getvalue()[:-400]}
    if damage in content:
        path.write_bytes(content[damage])
    with pytest.raises(InvalidInput, match=r"photo\.jpg") as caught:
        open_upright(path)
    assert caught.value.hint


def test_a_clean_png_holds_pixels_and_nothing_else(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(GPS)[1] = "N"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "somebody")
    Image.effect_noise((8, 8), 50).convert("RGB").save(
        tmp_path / "in.png", exif=exif, pnginfo=notes, dpi=(300, 300), icc_profile=b"profile"
    )
    with Image.open(tmp_path / "in.png") as dirty:
        dirty.load()
        save_clean_png(dirty, tmp_path / "out.png")
        pixels = dirty.tobytes()
    content = (tmp_path / "out.png").read_bytes()
    assert chunks(content) == {b"IHDR", b"IDAT", b"IEND"}
    with Image.open(tmp_path / "out.png") as clean:
        assert clean.tobytes() == pixels


def chunks(png: bytes) -> set[bytes]:
    """Names of the chunks of a PNG file."""
    found, place = set(), 8
    while place < len(png):
        found.add(png[place + 4 : place + 8])
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return found


def test_a_grid_places_pictures_row_by_row_and_keeps_proportions() -> None:
    sheet = grid([Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)], 2, cell_px=100)
    step = 104
    assert sheet.size == (2 * step + 4, 2 * step + 4)
    assert [sheet.getpixel((54 + dx * step, 54 + dy * step)) for dx, dy in ((0, 0), (1, 0), (0, 1))] == [
        RED,
        GREEN,
        BLUE,
    ]
    assert sheet.getpixel((54 + step, 54 + step)) == (255, 255, 255)
    assert sheet.getpixel((54, 14)) == (255, 255, 255)


def test_labels_stand_below_their_pictures_and_fit_the_cell() -> None:
    white = Image.new("RGB", (10, 10), (255, 255, 255))
    sheet = np.asarray(grid([white, white], 2, ["short", "a label that is much too long " * 3], cell_px=128))
    rows, columns = np.nonzero((sheet < 200).any(axis=2))
    assert rows.min() >= 4 + 128
    assert len(set(columns.tolist())) > 10


def test_a_grid_needs_pictures_and_a_label_for_each() -> None:
    with pytest.raises(InvalidInput):
        grid([], 3)
    with pytest.raises(InvalidInput):
        grid([Image.new("RGB", (4, 4))], 3, ["one", "two"])


def test_data_uris_of_images_and_files(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), RED)
    save_clean_png(image, tmp_path / "red.png")
    assert decoded(data_uri(tmp_path / "red.png")) == ((tmp_path / "red.png").read_bytes(), "image/png")
    content, kind = decoded(data_uri(tmp_path / "red.png", longest_px=10, quality=90))
    with Image.open(io.BytesIO(content)) as small:
        assert (kind, small.format, small.size) == ("image/jpeg", "JPEG", (10, 5))
    with Image.open(io.BytesIO(decoded(data_uri(image, longest_px=400))[0])) as same:
        assert (same.format, same.size) == ("PNG", (40, 20))


def test_a_page_never_holds_a_photos_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(GPS)[1] = "N"
    for name in ("phone.jpg", "phone.png"):
        Image.new("RGB", (40, 20), RED).save(tmp_path / name, exif=exif, comment=b"made by somebody")
        for picture in (tmp_path / name, Image.open(tmp_path / name)):
            content, _ = decoded(data_uri(picture))
            with Image.open(io.BytesIO(content)) as shown:
                assert dict(shown.getexif()) == {}, name
                assert "comment" not in shown.info
    content, kind = decoded(data_uri(tmp_path / "phone.jpg"))
    with Image.open(io.BytesIO(content)) as upright:
        assert (kind, upright.size) == ("image/jpeg", (20, 40))


def decoded(uri: str) -> tuple[bytes, str]:
    head, _, body = uri.partition(";base64,")
    return base64.b64decode(body), head.removeprefix("data:")
