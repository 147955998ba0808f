"""Figures of a run as it goes: a line for the bar, ``metrics.jsonl``, and TensorBoard events by choice.

In: a point of the loss curve and the seconds that its step took. Out: lines. A resumed run goes on after its
checkpoint's step: what was written beyond it is cut off. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch

from oblik.errors import BackendUnavailable
from oblik.paths import atomic_write
from oblik.training.artifact import METRICS, LossPoint

WINDOW = 20


class Metrics:
    """The figures of one run on one device."""

    def __init__(self, folder: Path, device: torch.device, total: int, start: int, tensorboard: bool) -> None:
        self._device, self._total = device, total
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._file = folder / METRICS
        self._events = _open_events(folder, start) if tensorboard else None
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        kept = [line for line in lines if _step_of(line) <= start]
        atomic_write(self._file, "".join(f"{line}\n" for line in kept))

    def add(self, point: LossPoint, rate: float, seconds: float) -> str:
        """Write a step down; a short line for a person."""
        self._recent.append(seconds)
        per_s = len(self._recent) / max(sum(self._recent), 1e-9)
        left_s = (self._total - point.step) / per_s
        vram = self.vram_bytes()
        figures: dict[str, Any] = {
            **point.model_dump(exclude_none=True), "rate": rate, "seconds": round(seconds, 4),
            "steps_per_s": round(per_s, 3), "left_s": round(left_s, 1), "vram_bytes": vram,
        }  # fmt: skip
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
        if self._events is not None:
            self._write_events(point, rate, per_s)
        parts = [f"loss {point.train:.3f}"]
        parts += [f"held out {point.validation:.3f}"] if point.validation is not None else []
        parts += [f"rate {rate:.1e}", f"{per_s:.1f} steps/s", f"{_clock(left_s)} left"]
        parts += [f"{vram / 2**30:.1f} GiB"] if vram is not None else []
        return ", ".join(parts)

    def note_replanned(self, message: str) -> None:
        """Write down that the run went on with a smaller plan."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"replanned": message}) + "\n")

    def vram_bytes(self) -> int | None:
        """The most memory that was allocated on a CUDA device so far; None elsewhere."""
        if self._device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self._device))

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()

    def _write_events(self, point: LossPoint, rate: float, per_s: float) -> None:
        figures = {"loss/train": point.train, "rate": rate, "steps_per_s": per_s}
        figures |= {f"loss/{term}": value for term, value in point.terms.items()}
        if point.validation is not None:
            figures["loss/held_out"] = point.validation
        assert self._events is not None
        for name, value in figures.items():
            self._events.add_scalar(name, value, point.step)


def _open_events(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as missing:
        raise BackendUnavailable(
            "TensorBoard events need the package tensorboard", hint="pip install tensorboard"
        ) from missing
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)


def _step_of(line: str) -> float:
    """The step of a line; a torn last line counts as beyond every step."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
