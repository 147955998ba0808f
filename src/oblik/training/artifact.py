"""The noun `LoraArtifact`: one version of one persona on one pack.

A folder ``personas/<slug>/loras/<version>/`` with

    lora.safetensors        diffusion_model.*.lora_A/B.weight + alpha (ComfyUI, diffusers, kohya-style tools)
    token.safetensors       the learned embedding row of the trigger token, (D,)
    tokenizer/              the pack's tokenizer with the trigger token added
    lora.json               this manifest
    training.json           losses per step;  samples/  pictures made on the way;  loss.png
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from oblik.personas.trigger import TokenProof
from oblik.training.config import TrainConfig

WEIGHTS, TOKEN, TOKENIZER, MANIFEST, CURVES = (
    "lora.safetensors", "token.safetensors", "tokenizer/tokenizer.json", "lora.json", "training.json",
)  # fmt: skip


class LoraArtifact(BaseModel):
    """The manifest ``lora.json``. ``token_proof`` is of the tokenizer that lies beside it.

    The trainer "kohya" learns no token: its ``token_id`` is -1, and neither token nor tokenizer lie there.
    """

    model_config = ConfigDict(extra="forbid")

    trainer: str = "native"
    persona: str
    version: str
    pack: str
    pack_version: str
    dataset: str
    dataset_sha256: str
    consent_sha256: str
    trigger: str
    token_id: int
    class_noun: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    steps: int
    config: TrainConfig
    created_at: datetime
    seconds: float
    weights_sha256: str
    token_sha256: str
    token_proof: TokenProof | None = None
    libraries: dict[str, str]


class LossPoint(BaseModel):
    """One step of the curve; ``validation`` is set where it was measured."""

    step: int
    train: float
    validation: float | None = None


class TrainingLog(BaseModel):
    """The file ``training.json``. ``samples`` maps a step to a picture, relative to the artifact."""

    losses: list[LossPoint]
    samples: dict[int, str] = {}


def read_artifact(folder: Path) -> LoraArtifact:
    """Read ``folder/lora.json``."""
    return LoraArtifact.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
