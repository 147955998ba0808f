"""Nothing that a camera or a person wrote beside the pixels reaches a file that is written."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageCms, PngImagePlugin
from tests.photos.pictures import encoded, picture

from oblik.images import data_uri, open_upright, save_clean_png
from oblik.photos.intake import read_photo

SECRET = "Zq7-secret"
XMP = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF>{SECRET}</rdf:RDF></x:xmpmeta>".encode()


def exif() -> Image.Exif:
    """Names, a place, a maker note and a thumbnail."""
    data = Image.Exif()
    data[0x010E] = data[0x013B] = data[0x8298] = SECRET
    inner = data.get_ifd(0x8769)
    inner[0x927C] = SECRET.encode()
    inner[0x9286] = b"ASCII\0\0\0" + SECRET.encode()
    place = data.get_ifd(0x8825)
    place[1], place[2] = "N", (47.0, 11.0, 5.0)
    place[0x1B] = SECRET.encode()
    return data


def with_iptc(jpeg: bytes) -> bytes:
    """A JPEG with a Photoshop segment that names somebody."""
    record = b"\x1c\x02\x50" + len(SECRET).to_bytes(2, "big") + SECRET.encode()
    record += b"\0" * (len(record) % 2)
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    return jpeg[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


def sources() -> dict[str, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add_text("Comment", SECRET, zip=True)
    return {
        "a.jpg": with_iptc(
            encoded("jpg", exif=exif(), xmp=XMP, comment=SECRET.encode(), icc_profile=profile)
        ),
        "a.png": encoded("png", pnginfo=text, exif=exif(), icc_profile=profile),
        "a.webp": encoded("webp", exif=exif().tobytes(), xmp=XMP, icc_profile=profile),
        "a.tif": encoded("tif", tiffinfo={270: SECRET, 315: SECRET, 700: XMP}),
        "a.gif": encoded("gif", picture(mode="P"), comment=SECRET.encode()),
        "a.avif": encoded("avif", exif=exif().tobytes(), xmp=XMP),
        "a.heic": encoded("heic", picture(128, 96), exif=exif().tobytes(), xmp=XMP),
    }


@pytest.mark.parametrize("name", sorted(sources()))
def test_only_pixels_are_written(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(sources()[name])
    assert SECRET.encode() in source.read_bytes()
    for number, image in enumerate(
        (read_photo(source), read_photo(source, short_side_px=64), open_upright(source))
    ):
        assert image.info == {}
        assert len(image.getexif()) == 0
        written = tmp_path / f"out{number}.png"
        save_clean_png(image, written)
        content = written.read_bytes()
        assert SECRET.encode() not in content
        assert {
            chunk for chunk in (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME") if chunk in content
        } == set()
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG")
        assert not any(
            word in jpeg.getvalue() for word in (SECRET.encode(), b"Exif", b"Photoshop", b"ICC_PROFILE")
        )
    assert "secret" not in data_uri(source)


def test_exiftool_finds_nothing_personal(tmp_path: Path) -> None:
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("exiftool is not installed")
    for name, content in sources().items():
        (tmp_path / name).write_bytes(content)
        save_clean_png(read_photo(tmp_path / name), tmp_path / f"{name}.clean.png")
    told = subprocess.run(
        [program, "-a", "-G1", "-s", *map(str, sorted(tmp_path.glob("*.clean.png")))],
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip
    groups = {line.split("]")[0].strip("[ ") for line in told.splitlines() if line.startswith("[")}
    assert SECRET not in told
    assert groups <= {"ExifTool", "System", "File", "PNG", "Composite"}
    names = {
        line.split("]")[1].split(":")[0].strip() for line in told.splitlines() if line.startswith("[PNG]")
    }
    assert names <= {
        "ImageWidth",
        "ImageHeight",
        "BitDepth",
        "ColorType",
        "Compression",
        "Filter",
        "Interlace",
    }
