"""Look at large PNG files: ``python tests/photos/decode_large.py 6000 5000 4`` (width, height, files).

Prints one JSON object: the peak memory before and after, in MB. Runs in a process of its own, because the
peak of a process never goes down.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.photos.fuzz import peak_mib  # noqa: E402

from oblik.datasets.curate import examine_all  # noqa: E402
from oblik.photos.intake import identify, list_files  # noqa: E402
from oblik.progress import SilentProgress  # noqa: E402


class NoFaces:
    """A face stack that finds none."""

    name = "none"

    def detect(self, image: Any) -> list[Any]:
        return []

    def embed(self, image: Any, face: Any) -> Any:
        raise NotImplementedError


def png(width: int, height: int) -> bytes:
    """An RGB picture of one grey, packed row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, row = zlib.compressobj(1), b"\0" + b"\x80" * (3 * width)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def main(width: int, height: int, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        content = png(width, height)
        for number in range(count):  # what follows the end makes files of their own of them
            (Path(name) / f"{number}.png").write_bytes(content + bytes([number]))
        files = list_files(Path(name))
        found = [identify(Path(name), file) for file in files]
        before = peak_mib()
        seen = list(examine_all(files, found, NoFaces(), SilentProgress()))
    assert all(one.thumb for one in seen), "each was decoded"
    return {"before": round(before * 1.048576), "peak": round(peak_mib() * 1.048576)}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
