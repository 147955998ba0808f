"""The header of a .safetensors file: names, shapes and metadata, without the tensors.

In: a file. Out: its table of tensors; or a copy under other names, byte for byte the same tensors. The
format: eight bytes with the header's length, a JSON object, the data. Knows no tensor library and no dtype.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from oblik.errors import LoraBroken
from oblik.paths import atomic_file

METADATA = "__metadata__"
MOST_HEADER_BYTES = 100_000_000


def tensors_in(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> ``{"dtype", "shape", "data_offsets"}``. Raises LoraBroken unless the file is whole."""
    with path.open("rb") as file:
        header, begin = _header(file, path)
    tensors = {name: entry for name, entry in header.items() if name != METADATA}
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as broken:
        raise LoraBroken(f"{path.name} has a damaged header", hint="train it again: oblik train") from broken
    if path.stat().st_size != begin + end:
        raise LoraBroken(f"{path.name} is cut off", hint="train it again: oblik train")
    return tensors


def copy_renamed(path: Path, target: Path, rename: Callable[[str], str]) -> None:
    """Copy ``path`` to ``target`` with every tensor's name given by ``rename``."""
    tensors_in(path)
    with path.open("rb") as source, atomic_file(target) as file:
        header, _ = _header(source, path)
        named = {name if name == METADATA else rename(name): entry for name, entry in header.items()}
        text = json.dumps(named, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(source, file)


def _header(file: IO[bytes], path: Path) -> tuple[dict[str, Any], int]:
    """The header and where the data begins; the file stands there."""
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MOST_HEADER_BYTES:
            raise ValueError("no header is that long")
        header = json.loads(file.read(length))
    except (struct.error, ValueError) as broken:
        raise LoraBroken(
            f"{path.name} is no safetensors file, or it is cut off", hint="train it again: oblik train"
        ) from broken
    if not isinstance(header, dict):
        raise LoraBroken(f"{path.name} is no safetensors file", hint="train it again: oblik train")
    return header, 8 + length
