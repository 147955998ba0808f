"""The phone folder holds what a phone folder holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from oblik.miniature import shoot as shoot_module
from oblik.miniature.shoot import shoot, stored

Folder = tuple[Path, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    before = shoot_module.DRAWN
    shoot_module.DRAWN = 128  # small drawings keep the test quick
    try:
        out = tmp_path_factory.mktemp("phone")
        return out, shoot(21, 20, out)
    finally:
        shoot_module.DRAWN = before


def readable(folder: Folder) -> list[tuple[Path, str]]:
    out, manifest = folder
    return [(out / name, kind) for name, kind in manifest if kind != "corrupt"]


def test_the_list_matches_the_files(folder: Folder) -> None:
    out, manifest = folder
    found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert found == sorted(name for name, _ in manifest)
    assert len(found) == 20
    kinds = Counter(kind for _, kind in manifest)
    assert kinds["burst"] == 4
    assert kinds["stranger"] == 2
    assert kinds["corrupt"] == 1
    assert kinds["duplicate"] >= 2
    assert kinds["occluded"] >= 2
    assert kinds["photo"] >= 5
    assert any("/" in name for name in found)
    assert all(name.endswith(".jpg") for name in found)


def test_camera_data(folder: Folder) -> None:
    times, turns, shapes = [], set(), set()
    for path, _ in readable(folder):
        with Image.open(path) as image:
            exif = image.getexif()
            assert exif[0x010F]
            assert exif[0x0110]
            place = exif.get_ifd(0x8825)
            assert place[1] == "S"
            assert len(place[2]) == 3
            assert place[3] == "W"
            times.append(exif.get_ifd(0x8769)[0x9003])
            turns.add(exif[0x0112])
            shapes.add(ImageOps.exif_transpose(image).size)
    assert turns <= {1, 3, 6, 8}
    assert len(turns) >= 3
    assert len({t[:10] for t in times}) > 5
    assert len(shapes) > 5


def test_burst_within_two_seconds(folder: Folder) -> None:
    stamps = []
    for path, kind in readable(folder):
        if kind == "burst":
            with Image.open(path) as image:
                stamps.append(str(image.getexif().get_ifd(0x8769)[0x9003]))
    assert len(stamps) == 4
    assert len({s[:16] for s in stamps}) <= 2
    assert len(set(stamps)) == 2


def test_the_damaged_file_is_unreadable(folder: Folder) -> None:
    out, manifest = folder
    name = next(name for name, kind in manifest if kind == "corrupt")
    with pytest.raises(OSError, match=r"(?i)truncated|cannot identify"), Image.open(out / name) as image:
        image.load()


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_orientation_brings_pixels_upright(turn: int) -> None:
    upright = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    image = Image.fromarray(stored(upright, turn))
    image.getexif()[0x0112] = turn
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), upright)


def test_second_run_is_identical_and_truth_is_opt_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shoot_module, "DRAWN", 96)
    first, second = shoot(4, 7, tmp_path / "a"), shoot(4, 7, tmp_path / "b", truth=True)
    assert first == second
    for name, _ in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "b" / "truth.json").exists()
    assert not (tmp_path / "a" / "truth.json").exists()


def test_needs_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        shoot(1, 0, tmp_path)
