"""Made pictures say so in every place that a reader looks, point to their record, and name nobody."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from oblik.errors import BackendUnavailable
from oblik.generation.plan import Edit, Plan
from oblik.generation.record import keep_picture
from oblik.images import data_uri, label_of, open_upright, save_clean_png
from oblik.labels import XMP_CHUNK, Label, Labeller, Source, fingerprint, labelled_png, open_sign, xmp
from oblik.paths import sha256_file
from oblik.registry import load

PLAN = Plan(pack="p", persona="sitter", prompt="photo of <oblik_sitter> & <friends>", seeds=(3,))
MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
EDITED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def picture() -> Image.Image:
    image = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    image.info["comment"] = "somebody's name"
    return image


def told(path: Path) -> ElementTree.Element:
    with Image.open(path) as opened:
        packet = opened.info[XMP_CHUNK]
    found = ElementTree.fromstring(packet).find(f".//{RDF}Description")
    assert found is not None
    return found


def chunks(png: bytes) -> Iterator[str]:
    place = 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8].decode()
        place += 12 + length


def test_a_made_picture_says_so_and_points_to_its_record(tmp_path: Path) -> None:
    kept = keep_picture(picture(), tmp_path / "01-seed3.png", 3, PLAN, Labeller())
    path = tmp_path / kept.file
    assert kept.sha256 == sha256_file(path), "the record knows the labelled file"
    assert kept.pixels_sha256 == fingerprint(open_upright(path)) == fingerprint(picture())
    pointer = f"record.json#{kept.pixels_sha256}"
    with Image.open(path) as opened:
        assert opened.info["Comment"] == "AI-generated picture"
        assert (opened.info["DigitalSourceType"], opened.info["Record"]) == (MADE, pointer)
    found = told(path)
    assert found.findtext(f"{EXT}DigitalSourceType") == MADE
    assert found.findtext(f"{DC}relation/{RDF}Bag/{RDF}li") == pointer
    assert label_of(path) == Label(record=pointer)


def test_neither_prompt_nor_name_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    keep_picture(picture(), path, 3, PLAN, Labeller())
    for word in (b"sitter", b"photo of", b"somebody"):
        assert word not in path.read_bytes()
    keep_picture(picture(), path, 3, PLAN, Labeller(with_prompt=True))
    assert told(path).findtext(f"{EXT}AIPromptInformation") == PLAN.prompt
    label = label_of(path)
    assert label is not None
    assert label.prompt == PLAN.prompt


def test_an_edited_photo_is_a_composite(tmp_path: Path) -> None:
    edited = PLAN.model_copy(update={"edit": Edit(image="a.png", mask="b.png")})
    keep_picture(picture(), tmp_path / "1.png", 3, edited, Labeller())
    assert told(tmp_path / "1.png").findtext(f"{EXT}DigitalSourceType") == EDITED


def test_the_same_picture_gets_the_same_bytes(tmp_path: Path) -> None:
    files = [keep_picture(picture(), tmp_path / f"{n}.png", 3, PLAN, Labeller()) for n in range(2)]
    assert files[0].sha256 == files[1].sha256


def test_fingerprints_are_of_pixels_and_shape() -> None:
    image = picture()
    moved = image.copy()
    moved.putpixel((5, 5), (1, 2, 3))
    turned = Image.frombytes("RGB", (image.height, image.width), image.tobytes())
    assert len({fingerprint(each) for each in (image, moved, turned)}) == 3


def test_intake_takes_the_label_away_and_photos_get_none(tmp_path: Path) -> None:
    made, photo = tmp_path / "made.png", tmp_path / "photo.png"
    Labeller().save(picture(), made, Label(record="record.json"))
    save_clean_png(open_upright(made), photo)
    assert label_of(photo) is None
    assert "tEXt" not in set(chunks(photo.read_bytes()))


@pytest.mark.parametrize("quality", [None, 80])
def test_a_picture_on_a_page_keeps_its_label(tmp_path: Path, quality: int | None) -> None:
    path, label = tmp_path / "made.png", Label(source=Source.edited, record="record.json")
    Labeller().save(picture(), path, label)
    shown = tmp_path / "shown"
    shown.write_bytes(base64.b64decode(data_uri(path, longest_px=24, quality=quality).partition(",")[2]))
    assert label_of(shown) == label


def test_what_is_no_label_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    assert label_of(tmp_path / "text.png") is None
    assert label_of(tmp_path / "missing.png") is None
    other = xmp(Label()).replace("trainedAlgorithmicMedia", "digitalCapture").encode()
    picture().save(tmp_path / "camera.jpg", xmp=other)
    assert label_of(tmp_path / "camera.jpg") is None


def test_without_the_extra_the_command_that_installs_it_is_said() -> None:
    with pytest.raises(BackendUnavailable) as refused:
        load("signature", "c2pa", {"c2pa": "no_such_package_here:x"}, {"c2pa": "c2pa"})
    assert refused.value.hint == "pip install 'oblik[c2pa]'"


def test_content_credentials_are_valid_and_leave_pixels_and_label_alone(tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa", reason="oblik[c2pa] is not installed")
    labeller = Labeller(sign=open_sign(tmp_path / "credentials"))
    kept = keep_picture(picture(), tmp_path / "1.png", 3, PLAN, labeller)
    path = tmp_path / kept.file
    signed = path.read_bytes()
    assert "caBX" in set(chunks(signed))
    assert kept.sha256 == sha256_file(path)
    assert label_of(path) == Label(record=f"record.json#{kept.pixels_sha256}")
    assert fingerprint(open_upright(path)) == kept.pixels_sha256
    assert b"sitter" not in signed

    def state(png: bytes) -> str:
        with c2pa.Reader("image/png", io.BytesIO(png)) as reader:
            found = reader.json()
            assert MADE in found
            return str(reader.get_validation_state())

    assert state(signed) == "Valid"
    assert state(signed.replace(b"AI-generated", b"AI-generatet")) == "Invalid"
    keep_picture(picture(), path, 3, PLAN, Labeller(sign=open_sign(tmp_path / "credentials")))
    assert state(path.read_bytes()) == "Valid", "the key is kept"
    assert labelled_png(picture(), Label(record=f"record.json#{kept.pixels_sha256}")) != signed
