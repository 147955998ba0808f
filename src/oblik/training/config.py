"""What a training run is asked to do. Written into the artifact's manifest as it ran."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ATTENTION_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)  # fmt: skip
MLP_TARGETS = ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")


class TrainConfig(BaseModel):
    """Settings of one LoRA run. A pack's ``training`` table overrides these defaults.

    The token is learned first (``token_steps``), then frozen; the LoRA follows (``steps``). ``steps``,
    ``validate_every`` and the like count over both. ``prior_share`` of the LoRA's photos are shown without
    the token: there the LoRA must do what the base model does. The token starts from what the pack's identity
    adapter reads in the photos' faces (``photos``), where there is one, else as the class noun (``noun``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    rank: int = Field(16, ge=1, le=256)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ATTENTION_TARGETS
    learning_rate: float = Field(1e-4, gt=0)
    token_learning_rate: float = Field(1e-3, gt=0)
    token_start: Literal["photos", "noun"] = "photos"
    token_steps: int = Field(500, ge=0)
    steps: int = Field(2000, ge=1)
    batch: int = Field(4, ge=1)
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    caption_dropout: float = Field(0.05, ge=0, lt=1)
    face_weight: float = Field(2.0, ge=1)
    prior_share: float = Field(0.3, ge=0, lt=1)
    checkpoint_every: int = Field(100, ge=1)
    validate_every: int = Field(50, ge=1)
    sample_every: int = Field(0, ge=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
