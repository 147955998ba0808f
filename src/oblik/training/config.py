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

    The words come first (``token_steps``): the token's embedding and a LoRA on the upper ``text_layers``
    layers of the text encoder. Then both are frozen, the text is cached, and the LoRA of the network follows
    (``steps``). ``steps``, ``validate_every`` and the like count over both. The token starts from what the
    pack's identity adapter reads in the photos' faces (``photos``), where there is one, else as the class
    noun (``noun``).

    A batch is made of photos; ``prior_share`` of them are shown without the token (there the network must say
    what it said before), and where the dataset has pictures of other people, ``class_share`` and
    ``negative_share`` of the batch are those. ``micro_batch`` of the batch's pictures go through the network
    at once (0: all); it changes what memory is needed, not what is learned. ``ema`` averages the LoRA's
    weights with that decay (0: off). The loss is measured on at most ``held_out`` photos;
    ``patience`` validations without an improvement end the run (0: never).
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
    text_layers: int = Field(8, ge=0)
    text_rank: int = Field(8, ge=1, le=256)
    text_learning_rate: float = Field(5e-5, gt=0)
    steps: int = Field(2000, ge=1)
    batch: int = Field(4, ge=1)
    micro_batch: int = Field(0, ge=0)
    gradient_checkpointing: bool = False
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    caption_dropout: float = Field(0.05, ge=0, lt=1)
    face_weight: float = Field(2.0, ge=1)
    prior_share: float = Field(0.3, ge=0, lt=1)
    class_share: float = Field(0.15, ge=0, lt=0.5)
    negative_share: float = Field(0.1, ge=0, lt=0.5)
    checkpoint_every: int = Field(100, ge=1)
    validate_every: int = Field(50, ge=1)
    held_out: int = Field(32, ge=1)
    patience: int = Field(0, ge=0)
    sample_every: int = Field(0, ge=0)
    probe_images: int = Field(8, ge=1, le=64)
    tensorboard: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
