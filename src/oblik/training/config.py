"""What a training run is asked to do. Written into the artifact's manifest as it ran."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ATTENTION_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)  # fmt: skip
MLP_TARGETS = ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")
UNET_MLP_TARGETS = ("ff.net.0.proj", "ff.net.2")
TEXT = "text"
TARGETS = {"attention": ATTENTION_TARGETS, "mlp": MLP_TARGETS + UNET_MLP_TARGETS, TEXT: ()}
"""What words mean; of these names each kind of network has some."""
TEXT_LAYERS = 8


class TrainConfig(BaseModel):
    """Settings of one LoRA run. A pack's ``training`` table overrides these defaults.

    The words come first (``token_steps``): the token's embedding and a LoRA on the upper ``text_layers``
    layers of the text encoder. Then both are frozen, the text is cached, and the LoRA of the network follows
    (``steps``). ``steps``, ``validate_every`` and the like count over both.

    A batch is made of photos; ``prior_share`` of them are shown without the token (there the network must say
    what it said before), and where the dataset has pictures of other people, ``class_share`` and
    ``negative_share`` of the batch are those.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, description="Of everything that is drawn.")
    rank: int = Field(16, ge=1, le=256, description="Rank of the LoRA.")
    alpha: float = Field(16.0, gt=0, description="Alpha of the LoRA; alpha / rank scales it.")
    targets: tuple[str, ...] = Field(
        ATTENTION_TARGETS,
        description="`attention`, `mlp`, `text`, or names of modules, with commas. Without `text` no layer "
        "of the text encoder learns.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="Of the LoRA.")
    token_learning_rate: float = Field(1e-3, gt=0, description="Of the token's embedding.")
    token_start: Literal["photos", "noun"] = Field(
        "photos",
        description="The embedding before training: read off the photos' faces where the pack has an "
        "identity adapter, or the class noun's.",
    )
    token_steps: int = Field(500, ge=0, description="Steps for the words, before the others; 0: none.")
    text_layers: int = Field(
        TEXT_LAYERS, ge=0, description="Upper layers of the text encoder that learn; 0: none."
    )
    text_rank: int = Field(8, ge=1, le=256, description="Rank of the LoRA there.")
    text_learning_rate: float = Field(5e-5, gt=0, description="Learning rate of that LoRA.")
    steps: int = Field(2000, ge=1, description="Steps of the network's LoRA.")
    size_px: int = Field(
        0, ge=0, description="Short side to shrink photos to, in pixels; 0: as the dataset has them."
    )
    batch: int = Field(4, ge=1, description="Pictures that one step learns from.")
    micro_batch: int = Field(
        0, ge=0, description="Of those, how many are in memory at once (gradients are accumulated); 0: all."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, slower by up to a third.")
    optimiser: Literal["adamw", "adamw8bit"] = Field("adamw", description="8 bit needs an NVIDIA card.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_steps: int = Field(20, ge=0, description="Steps in which the learning rate grows.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    clip_norm: float = Field(1.0, gt=0, description="Greatest norm of a step's gradients.")
    ema: float = Field(0.0, ge=0, lt=1, description="Average the LoRA's weights with this decay; 0: off.")
    caption_dropout: float = Field(0.05, ge=0, lt=1, description="Share of captions left empty.")
    face_weight: float = Field(2.0, ge=1, description="Weight of the face in the loss.")
    prior_share: float = Field(0.3, ge=0, lt=1, description="Share of photos shown without the token.")
    class_share: float = Field(0.15, ge=0, lt=0.5, description="Share of class images in a batch.")
    negative_share: float = Field(0.1, ge=0, lt=0.5, description="Share of negatives in a batch.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    validate_every: int = Field(50, ge=1, description="Steps between losses on held-out photos.")
    held_out: int = Field(32, ge=1, description="Greatest number of photos for these.")
    patience: int = Field(0, ge=0, description="Validations without gain that end the run; 0: never.")
    sample_every: int = Field(0, ge=0, description="Steps between probe pictures; 0: none.")
    probe_images: int = Field(
        8, ge=1, le=64, description="Pictures of one probe, with the token and without."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard events as well.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16",
        description="Type of the base model's arithmetic; `fp32`, `bf16` and `fp16` are understood.",
    )

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, values: Any) -> Any:
        """``targets`` and ``dtype`` as people type them."""
        if not isinstance(values, dict):
            return values
        short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
        values = {**values, "dtype": short.get(str(values.get("dtype")), values.get("dtype", "bfloat16"))}
        if isinstance(values.get("targets"), str):
            words = [word.strip() for word in values["targets"].split(",") if word.strip()]
            values["targets"] = tuple(name for word in words for name in TARGETS.get(word, (word,)))
            values["text_layers"] = (values.get("text_layers") or TEXT_LAYERS) if TEXT in words else 0
            if not values["targets"]:
                raise ValueError("the LoRA needs a target besides the text encoder")
        return values
