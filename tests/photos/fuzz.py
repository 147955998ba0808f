"""Damage valid files at random and take them in: ``python tests/photos/fuzz.py 1000 0`` (files, seed).

Prints one JSON object: how many files were accepted and refused, the slowest, and the peak memory of this
process. Runs in a process of its own, so that a decoder that crashes is seen as such.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.photos.pictures import FORMATS, encoded, picture  # noqa: E402

from oblik.photos.intake import identify, list_files, take  # noqa: E402


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One of seven kinds of damage."""
    data, kind = bytearray(content), int(rng.integers(7))
    if kind == 0:  # a few bits anywhere
        for at in rng.integers(0, len(data), 1 + int(rng.integers(12))):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut off
        del data[int(rng.integers(1, len(data))) :]
    elif kind == 2:  # bytes of the header
        for at in rng.integers(0, min(96, len(data)), 1 + int(rng.integers(4))):
            data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
    elif kind == 3:  # a hole of zeros
        at = int(rng.integers(len(data)))
        end = min(len(data), at + int(rng.integers(1, 400)))
        data[at:end] = bytes(end - at)
    elif kind == 4:  # a piece twice
        at = int(rng.integers(len(data)))
        data[at:at] = data[at : at + int(rng.integers(1, 300))]
    elif kind == 5:  # a piece missing
        at = int(rng.integers(len(data)))
        del data[at : at + int(rng.integers(1, 200))]
    else:  # the beginning of one file, the end of another
        data = data[: int(rng.integers(1, len(data)))] + bytearray(other[int(rng.integers(len(other))) :])
    return bytes(data)


def fuzz(files: int, seed: int) -> dict[str, float]:
    """Take in ``files`` damaged files, one at a time, from a folder that is emptied in between."""
    rng = np.random.default_rng(seed)
    modes = {"png": ("RGB", "RGBA", "P", "L", "1"), "tif": ("RGB", "CMYK", "L"), "gif": ("P",)}
    originals = [
        (kind, encoded(kind, picture(96, 80, mode, seed=place)))
        for kind in FORMATS
        for place, mode in enumerate(modes.get(kind, ("RGB",)))
    ]
    counts, slowest_s = {"accepted": 0, "refused": 0}, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(files):
            kind, content = originals[number % len(originals)]
            other = originals[int(rng.integers(len(originals)))][1]
            (folder / f"{number}.{kind}").write_bytes(mutated(content, other, rng) or b"x")
            started_s = time.process_time()
            (file,) = list_files(folder)
            found, image = take(identify(folder, file), file, short_side_px=64)
            slowest_s = max(slowest_s, time.process_time() - started_s)
            assert (image is None) == bool(found.refused)
            counts["refused" if found.refused else "accepted"] += 1
            file.unlink()
    return {"files": files, **counts, "slowest_s": round(slowest_s, 2), "peak_mib": round(peak_mib())}


def peak_mib() -> float:
    """The most memory of this program; on Linux ru_maxrss would count the one that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    print(json.dumps(fuzz(int(sys.argv[1]), int(sys.argv[2]))))
