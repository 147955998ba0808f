"""How weights move: optimisers, learning rates, clipping, averages.

In: groups of parameters with their peak rates, and gradients. Out: changed parameters. Knows nothing of what
they are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from oblik.errors import BackendUnavailable, TrainingDiverged
from oblik.training.config import TrainConfig


class Group(NamedTuple):
    """Parameters that share a peak learning rate and a weight decay."""

    parameters: list[nn.Parameter]
    peak: float
    weight_decay: float


class Stage:
    """One part of a run, ``first`` to ``first + steps``, with its own optimiser and schedule."""

    def __init__(
        self, name: str, first: int, steps: int, groups: Sequence[Group], config: TrainConfig,
        device: torch.device, ema: float = 0.0,
    ) -> None:  # fmt: skip
        self.name, self.first, self.steps, self.config = name, first, steps, config
        self.groups = list(groups)
        self.parameters = [p for group in groups for p in group.parameters]
        self.optimiser = _open_optimiser(config.optimiser, groups, device) if self.parameters else None
        half = config.dtype == "float16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.average = Average(self.parameters, ema) if ema else None

    def rate(self, step: int, peak: float) -> float:
        """Warm-up, then constant, or a cosine to a tenth of the peak."""
        at = step - self.first
        warm = min(1.0, (at + 1) / max(1, self.config.warmup_steps))
        if self.config.schedule == "constant":
            return peak * warm
        return peak * warm * (0.55 + 0.45 * float(np.cos(np.pi * at / self.steps)))

    def move(self, step: int) -> None:
        """Take one step along the gradients, clipped; in half precision skip it where they overflowed.

        Raises:
            TrainingDiverged: the gradients are no numbers.
        """
        assert self.optimiser is not None
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise TrainingDiverged(f"the gradients of step {step + 1} are no numbers", hint=RETRY)
        for place, group in zip(self.optimiser.param_groups, self.groups, strict=True):
            place["lr"] = self.rate(step, group.peak)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.average:
            self.average.update()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        return {
            "parameters": [p.detach().clone() for p in self.parameters],
            "optimiser": self.optimiser.state_dict() if self.optimiser else {},
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put a state back. Raises ValueError when its shapes are others."""
        copy_into(self.parameters, state["parameters"])
        if self.optimiser:
            self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average and state["average"]:
            self.average.load(state["average"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are their running average, where one is kept."""
        if self.average is None:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        copy_into(self.parameters, self.average.shadow)
        try:
            yield
        finally:
            copy_into(self.parameters, own)


class Average:
    """Exponential moving average of parameters, faster at first: min(decay, (1 + n) / (10 + n))."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self.count = list(parameters), decay, 0
        self.shadow = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        for kept, now in zip(self.shadow, self._parameters, strict=True):
            kept.lerp_(now.detach(), 1 - decay)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "shadow": [kept.clone() for kept in self.shadow]}

    def load(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self.shadow = [kept.to(now.device) for kept, now in zip(state["shadow"], self.shadow, strict=True)]


RETRY = "oblik train --resume --learning-rate 5e-5 (it goes on from the last good checkpoint)"


@torch.no_grad()
def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Write values into parameters, one to one. Raises ValueError when the shapes differ."""
    if [p.shape for p in parameters] != [v.shape for v in values]:
        raise ValueError("other shapes")
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _open_optimiser(name: str, groups: Sequence[Group], device: torch.device) -> torch.optim.Optimizer:
    table = [
        {"params": group.parameters, "lr": group.peak, "weight_decay": group.weight_decay} for group in groups
    ]
    if name == "adamw":
        return torch.optim.AdamW(table)
    if device.type != "cuda":
        raise BackendUnavailable(
            f"8-bit AdamW runs on NVIDIA cards; this run is on {device.type}",
            hint="oblik train --optimiser adamw",
        )
    try:
        kind = import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as missing:
        raise BackendUnavailable(
            "8-bit AdamW needs the package bitsandbytes", hint="pip install bitsandbytes"
        ) from missing
    optimiser: torch.optim.Optimizer = kind(table)
    return optimiser
