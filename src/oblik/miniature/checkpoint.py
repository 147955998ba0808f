"""A pretraining run that can be killed at any step and goes on to the same weights.

In: named state (modules, optimisers) and a step. Out: one file, replaced whole. Batches are drawn
from `draw(seed, step)`, so a step's data depends on nothing that came before it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch


def draw(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The random generators of one step."""
    return np.random.default_rng([seed, step]), torch.Generator().manual_seed(seed * 1_000_003 + step)


def save(path: Path, step: int, state: dict[str, Any]) -> None:
    """Write ``state`` (each value has ``state_dict``) and the number of finished steps."""
    whole = {name: part.state_dict() for name, part in state.items()}
    partial = path.with_suffix(".partial")
    torch.save({"step": step, **whole}, partial)
    partial.replace(path)


def resume(path: Path, state: dict[str, Any]) -> int:
    """Load ``state`` in place from ``path`` when it exists; the number of finished steps."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def cosine(step: int, total: int, *, warmup: int, floor: float = 0.02) -> float:
    """Factor of the learning rate: linear warm-up, then a half cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate from its ``initial_lr``."""
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor
