"""What is costly to compute and the same in every run of a persona: latents and text states, on the disk.

In: a key made of everything that the value depends on, and a function that computes it. Out: tensors, from a
safetensors file where there is one. Files are owner-only and lie under the persona, with whom they are
destroyed: latents are as private as photos. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from oblik.packs.manifest import OpenPack
from oblik.paths import atomic_write

KEPT_TEXTS = 3
Tensors = dict[str, Tensor]


def key_of(*parts: object) -> str:
    """A key of these values, in this order."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def tensor_key(tensors: Iterable[Tensor]) -> str:
    """A key of the bytes of some tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def component_key(pack: OpenPack, name: str) -> str:
    """A key of one component of a pack: its files' hashes, or the pack's version where it lists none.

    A file beside the components' folders may be a checkpoint that holds them all, and counts for each.
    """
    files = [file for component in pack.manifest.components.values() for file in component.files]
    hashes = sorted(file.sha256 for file in files if file.path.split("/")[0] in (name, file.path))
    return key_of(*(hashes or (pack.manifest.name, pack.manifest.version, name)))


@dataclass(frozen=True)
class Caches:
    """A folder of files by key."""

    folder: Path

    def picture(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """What belongs to one picture; computed when nothing whole is there."""
        file = self.folder / "latents" / f"{key}.safetensors"
        found = _read(file)
        if not found:
            found = make()
            _write(file, found)
        return found

    def texts(self, key: str, captions: Iterable[str], make: Callable[[list[str]], Tensors]) -> Tensors:
        """What ``make`` gives for captions, by `key_of` each; only those that are missing are computed."""
        file = self.folder / "texts" / f"{key}.safetensors"
        found = _read(file)
        have = {name.partition(".")[0] for name in found}
        missing = [caption for caption in dict.fromkeys(captions) if key_of(caption) not in have]
        if missing:
            found |= make(missing)
            _write(file, found)
            self._drop_old_texts()
        return found

    def _drop_old_texts(self) -> None:
        """Text states belong to one learned token; those of earlier runs are of no use for long."""
        files = sorted(
            (self.folder / "texts").glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns
        )
        for file in files[:-KEPT_TEXTS]:
            file.unlink(missing_ok=True)


def _read(file: Path) -> Tensors:
    try:
        return dict(load_file(file)) if file.is_file() else {}
    except SafetensorError:
        return {}


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    atomic_write(file, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))
