"""The requests of the training tests, for pictures of a trained LoRA."""

from __future__ import annotations

from tests.training.conftest import ask, dataset_dir, pack, persona

__all__ = ["ask", "dataset_dir", "pack", "persona"]
