"""What a stopped training needs to go on, in the artifact's ``work/`` folder.

In: the run's state. Out: files that are whole or absent: ``step-00150.pt`` (the last three are kept) and
``best-00150.pt``, the weights of the best judged step. Whoever ordered the run destroys the folder when the
artifact is complete. Knows nothing of training.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oblik.paths import atomic_write

KEPT = 3


@dataclass(frozen=True)
class Checkpoints:
    """The files of one run."""

    folder: Path

    def save(self, step: int, state: dict[str, Any], best: int | None) -> None:
        """Write a checkpoint; then let those go that are older than the last three, and weights once best."""
        _write(self._file("step", step), {"step": step, **state})
        for older in self.steps()[:-KEPT]:
            self._file("step", older).unlink(missing_ok=True)
        for known in self._numbers("best"):
            if known != best:
                self._file("best", known).unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; None when there is none."""
        for step in reversed(self.steps()):
            whole = _read(self._file("step", step))
            if whole is not None:
                return whole
        return None

    def save_best(self, step: int, weights: Sequence[Tensor]) -> None:
        """Keep the weights of a step that is now the best."""
        _write(self._file("best", step), {"weights": [w.detach().clone() for w in weights]})

    def load_best(self, step: int) -> list[Tensor] | None:
        """The weights of a step, where they were kept."""
        whole = _read(self._file("best", step))
        return None if whole is None else list(whole["weights"])

    def forget_after(self, step: int) -> None:
        """Let checkpoints go that were written after ``step``."""
        for known in self.steps():
            if known > step:
                self._file("step", known).unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return self._numbers("step")

    def _file(self, kind: str, step: int) -> Path:
        return self.folder / f"{kind}-{step:06d}.pt"

    def _numbers(self, kind: str) -> list[int]:
        return sorted(int(file.stem.partition("-")[2]) for file in self.folder.glob(f"{kind}-*.pt"))


def _write(path: Path, whole: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    atomic_write(path, buffer.getvalue())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        whole: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError):
        return None
    return whole
