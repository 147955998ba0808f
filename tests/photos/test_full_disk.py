"""A disk that fills up: what is there is whole, and the same command goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oblik.images import save_clean_png

resource = pytest.importorskip("resource", reason="limits files as POSIX systems do")


def noise(seed: int, side: int = 160) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_all(folder: Path, images: list[Image.Image]) -> None:
    for number, image in enumerate(images):
        if not (folder / f"{number}.png").exists():
            save_clean_png(image, folder / f"{number}.png")


def check_whole(folder: Path) -> int:
    """Every file there can be read, and no other is there."""
    files = sorted(folder.iterdir())
    for file in files:
        assert file.suffix == ".png"
        with Image.open(file) as image:
            image.load()
    return len(files)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    images = [noise(0, 64), noise(1, 64), noise(2, 160), noise(3, 64)]
    with no_file_larger_than(40_000), pytest.raises(OSError, match="large"):
        write_all(tmp_path / "out", images)
    assert check_whole(tmp_path / "out") == 2
    write_all(tmp_path / "out", images)
    assert check_whole(tmp_path / "out") == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, where this is allowed."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if not (mount and unmount) or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be made here")
    yield disk
    subprocess.run([unmount, str(disk)], check=True)


def test_a_full_disk_is_whole_and_resumable(small_disk: Path) -> None:
    images = [noise(i) for i in range(5)]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    with pytest.raises(OSError, match="No space"):
        write_all(small_disk / "out", images)
    done = check_whole(small_disk / "out")
    assert 1 <= done < 5
    ballast.unlink()
    write_all(small_disk / "out", images)
    assert check_whole(small_disk / "out") == 5
