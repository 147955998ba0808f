"""What a stopped training needs to go on, in the artifact's ``work/`` folder.

In: the run's state. Out: one file, replaced whole, and cached latents keyed by what they were made of.
The folder is destroyed when the artifact is complete: latents are as private as photos.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from oblik.diffusion.lora import ADAPTER
from oblik.paths import atomic_write
from oblik.training.artifact import TrainingLog


@dataclass(frozen=True)
class Found:
    """Where a stopped run stood."""

    step: int
    seconds: float
    log: TrainingLog


@dataclass(frozen=True)
class Checkpoint:
    """One file with step, curves, LoRA, token row and optimisers."""

    path: Path

    def save(
        self,
        step: int,
        seconds: float,
        log: TrainingLog,
        transformer: Any,
        row: nn.Parameter,
        optimisers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        """Replace the file."""
        whole = {
            "step": step,
            "seconds": seconds,
            "log": log.model_dump_json(),
            "lora": get_peft_model_state_dict(transformer, adapter_name=ADAPTER),
            "row": row.detach(),
            "optimisers": {name: each.state_dict() for name, each in optimisers.items()},
        }
        buffer = io.BytesIO()
        torch.save(whole, buffer)
        atomic_write(self.path, buffer.getvalue())

    def load(
        self, transformer: Any, row: nn.Parameter, optimisers: Mapping[str, torch.optim.Optimizer]
    ) -> Found | None:
        """Put the state back; None when there is no checkpoint yet."""
        if not self.path.is_file():
            return None
        whole = torch.load(self.path, weights_only=True)
        set_peft_model_state_dict(transformer, whole["lora"], adapter_name=ADAPTER)
        with torch.no_grad():
            row.copy_(whole["row"])
        for name, each in optimisers.items():
            each.load_state_dict(whole["optimisers"][name])
        return Found(whole["step"], whole["seconds"], TrainingLog.model_validate_json(whole["log"]))


def save_latents(path: Path, key: str, latents: Tensor) -> None:
    """Cache latents under a key of their inputs."""
    atomic_write(path, save({"latents": latents.cpu().contiguous()}, {"key": _digest(key)}))


def load_latents(path: Path, key: str) -> Tensor | None:
    """The cached latents, or None when there are none or their inputs changed."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("key") != _digest(key):
            return None
        return torch.as_tensor(file.get_tensor("latents"))


def finish(folder: Path) -> None:
    """Destroy the work folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
