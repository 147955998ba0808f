"""From photos to a version: archives, flags, how alike photos may be, mirrored copies, what adds up."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oblik.datasets.build import build_dataset
from oblik.datasets.extras import Wishes
from oblik.datasets.manifest import Augmentation, Dataset, Status
from oblik.errors import InvalidInput
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
Make = Callable[["Phone"], Dataset]


@pytest.fixture
def make(persona: Persona, home: Home, pack: Pack) -> Make:
    return lambda phone: build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW, progress=SilentProgress()
    )


def test_an_archive_gives_what_a_folder_gives(make: Make, phone: Phone, home: Home) -> None:
    with zipfile.ZipFile(phone.folder / "phone.zip", "w") as archive:
        for number in range(8):
            file = phone.folder / f"IMG_{number:02d}.jpg"
            archive.write(file, f"phone/{file.name}")
            file.unlink()
    dataset = make(phone)
    assert [photo.source for photo in dataset.accepted()][-1] == "phone.zip/phone/IMG_07.jpg"
    assert len(dataset.accepted()) == 16
    assert len(list((home.persona("subject").vault / "originals").iterdir())) >= 16


def test_a_second_run_adds_only_what_is_new(make: Make, phone: Phone) -> None:
    first = {photo.source_sha256: photo.sha256 for photo in make(phone).photos}
    with zipfile.ZipFile(phone.folder / "later.zip", "w") as archive:
        archive.write(phone.folder / "IMG_03.jpg", "again.jpg")
        phone.shoot("new.jpg", photo=77)
        archive.write(phone.folder / "new.jpg", "new.jpg")
        (phone.folder / "new.jpg").unlink()
    second = make(phone)
    assert (second.version, len(second.photos), len(second.accepted())) == ("v002", 18, 17)
    (new,) = [photo for photo in second.accepted() if photo.source_sha256 not in first]
    (again,) = [photo for photo in second.photos if photo.status is Status.set_aside]
    assert new.source == "later.zip/new.jpg"
    assert again.reason == "the same file as IMG_03.jpg"
    kept = {photo.source_sha256: photo.sha256 for photo in second.accepted() if photo is not new}
    assert kept == first, "the same pixels as before"


def test_flags_keep_a_photo_in_and_stand_on_the_page(make: Make, phone: Phone, home: Home) -> None:
    dataset = make(phone)
    photo = dataset.accepted()[0]
    assert photo.attributes["note"] == "a small face (40 px between the eyes, 60 are better)"
    assert "small face" not in photo.caption
    page = (home.persona("subject").datasets / "v001" / "report.html").read_text("utf-8")
    assert "Worth a look" in page
    assert photo.attributes["note"] in page
    assert "16 usable photos are few, and different enough (variability" in page


def test_few_photos_that_are_alike_are_refused_with_the_number(
    make: Make, another_phone: Callable[[str], Phone]
) -> None:
    phone = another_phone("selfies")
    for i in range(14):
        phone.shoot(f"{i}.jpg", photo=i, place=5, turn=(0.0, 0.3)[i % 2])
    with pytest.raises(InvalidInput, match=r"too much alike \(variability [12]\.\d, 6\.0 needed"):
        make(phone)


def test_a_face_is_measured_before_it_is_mirrored(
    make: Make, phone: Phone, persona: Persona, home: Home, pack: Pack
) -> None:
    def build(flip: bool) -> Dataset:
        return build_dataset(
            persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW,
            progress=SilentProgress(), wishes=Wishes(augmentation=Augmentation(copies=1, flip=flip)),
        )  # fmt: skip

    with pytest.raises(InvalidInput, match="7 near-frontal photos are too few"):
        build(flip=True)
    dataset = build(flip=False)
    assert dataset.asymmetry is not None
    assert dataset.asymmetry.photos == 7
    assert not dataset.asymmetry.flips_allowed
    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset
    page = (home.persona("subject").datasets / dataset.version / "report.html").read_text("utf-8")
    assert dataset.asymmetry.sentence() in page


def as_heic(file: Path) -> None:
    """The same photo as newer phones write it, with all that the camera said."""
    import pillow_heif

    with Image.open(file) as image:
        exif = image.getexif().tobytes()
        pillow_heif.from_pillow(image).save(file.with_suffix(".HEIC"), quality=95, exif=exif)
    assert b"Subject at home" in file.with_suffix(".HEIC").read_bytes()
    file.unlink()


def test_exiftool_finds_nothing_personal_in_a_version(make: Make, phone: Phone, home: Home) -> None:
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("exiftool is not installed")
    phone.shoot("nobody.jpg", photo=90, faces=0)
    for number in (0, 6, 12):
        as_heic(phone.folder / f"IMG_{number:02d}.jpg")
    dataset = make(phone)
    assert sum(photo.source.endswith(".HEIC") for photo in dataset.accepted()) == 3
    version = home.persona("subject").datasets / dataset.version
    written = sorted([*version.rglob("*.png"), *version.rglob("*.jpg")])
    assert any(file.suffix == ".jpg" for file in written), "thumbnails are looked at too"
    command = [program, "-a", "-G1", "-s", *map(str, written)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    groups = {line.split("]")[0].strip("[ ") for line in told.splitlines() if line.startswith("[")}
    assert groups <= {"ExifTool", "System", "File", "PNG", "JFIF", "Composite"}
    assert "private" not in told
    assert "Subject" not in told
    assert not any(Path(file).stat().st_mode & 0o077 for file in written)
