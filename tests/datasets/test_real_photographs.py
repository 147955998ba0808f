"""The commands on real photographs, with the dlib face stack: from a phone folder to a report."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.datasets.photographs import SECRET, fill

from oblik.cli import main
from oblik.datasets.manifest import Dataset, Photo, Status, read_dataset
from oblik.paths import Home


def missing(*packages: str) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


pytestmark = pytest.mark.skipif(
    bool(missing("dlib", "face_recognition_models", "skimage")),
    reason="needs pip install 'oblik[dlib]' scikit-image",
)


class Built:
    """One dataset, made by the commands, what is true of its photos, and what was said."""

    def __init__(self, folder: Path) -> None:
        data = importlib.import_module("skimage.data")
        self.home, photos, paper = Home(folder / "home"), folder / "phone", folder / "paper.pdf"
        self.truth = fill(photos, data)
        paper.write_bytes(b"%PDF-1.4 signed")
        signed = ("--consent-by", "The Sitter", "--consent-date", "2026-03-01", "--document", str(paper))
        self.said = self.run("persona", "create", "sitter", *signed, "--gender", "woman")
        self.said += self.run("dataset", "build", "sitter", str(photos), "--quiet")
        self.folder = self.home.persona("sitter").datasets / "v001"
        self.dataset: Dataset = read_dataset(self.folder)
        self.page = (self.folder / "report.html").read_text("utf-8")

    def run(self, *arguments: str) -> str:
        done = CliRunner().invoke(main, ["--home", str(self.home.root), "--face-stack", "dlib", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    def of(self, kind: str) -> list[Photo]:
        return [photo for photo in self.dataset.photos if self.truth[photo.source] == kind]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    before = dict(os.environ)
    os.environ["OBLIK_PASSPHRASE"] = "four words and a number 7"
    yield Built(tmp_path_factory.mktemp("real"))
    os.environ.clear()
    os.environ.update(before)


def test_every_photo_meets_its_fate(built: Built) -> None:
    fates = {
        kind: Counter(
            (photo.status.value, photo.reason.split(" (")[0].split(" as ")[0]) for photo in built.of(kind)
        )
        for kind in sorted(set(built.truth.values()))
    }
    assert fates["stranger"] == {("set_aside", "somebody else"): 4}
    assert fates["no face"] == {("set_aside", "no face was found in it"): 3}
    assert fates["burst"] == {("accepted", ""): 1, ("set_aside", "the same moment"): 2}
    assert fates["broken"] == {("refused", "the picture is cut off"): 1}
    originals = {re.sub(r"\D", "", photo.source) for photo in built.of("photo") if photo.reason}
    copies = {re.sub(r"\D", "", photo.source) for photo in built.of("copy") if not photo.reason}
    assert sum(fates["copy"].values()) == 3
    assert originals == copies, "of a photo and its copy one stays"
    assert sum(photo.status is Status.accepted for photo in built.dataset.photos) == 18 + 1


def test_the_report_says_what_to_shoot_next(built: Built) -> None:
    advice = built.page.partition('id="next"')[2].partition("</section>")[0]
    assert "19 usable photos are few, and different enough" in advice
    assert re.search(r"Photograph .*profiles turned to the left", advice)
    assert "Faces by <code>dlib-resnet-v1</code>" in built.page
    assert "only rendered people" not in built.page, "these faces were learned from photographs"


def test_captions_do_not_come_from_a_network_of_rendered_people(built: Built) -> None:
    assert built.dataset.caption_source == "words"
    assert all(
        photo.caption.startswith("photo of <oblik_sitter> woman") for photo in built.dataset.accepted()
    )


def test_the_face_is_cut_out(built: Built) -> None:
    for photo in built.dataset.accepted():
        assert photo.landmarks is not None
        eyes = photo.landmarks[:2]
        assert sum(x for x, _ in eyes) / 2 / (photo.width_px or 1) == pytest.approx(0.5, abs=0.15)
        assert sum(y for _, y in eyes) / 2 / (photo.height_px or 1) == pytest.approx(0.42, abs=0.08)


def test_nothing_personal_is_written(built: Built) -> None:
    home = built.home.root
    for file in home.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("exiftool is not installed")
    written = [str(file) for file in built.folder.rglob("*") if file.suffix in (".png", ".jpg")]
    told = subprocess.run(
        [program, "-a", "-G1", "-s", *written], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    groups = {line.split("]")[0].strip("[ ") for line in told.splitlines() if line.startswith("[")}
    assert groups <= {"ExifTool", "System", "File", "PNG", "JFIF", "Composite"}
