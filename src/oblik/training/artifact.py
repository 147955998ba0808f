"""The noun `LoraArtifact`: one version of one persona on one pack.

A folder ``personas/<slug>/loras/<version>/`` with

    lora.safetensors          diffusion_model.*.lora_A/B.weight + alpha (ComfyUI, diffusers and others); for
                              Stable Diffusion sd-scripts' names, the text encoders' LoRA among them
    text_encoder.safetensors  else the text encoder's LoRA, with ComfyUI's names; absent when none was trained
    token.safetensors         the learned embedding row of the trigger token, (D,), in each text encoder
    tokenizer/                the pack's tokenizer with the trigger token added; SDXL: tokenizer_2/, too
    lora.json                 this manifest
    training.json             losses per step, judgements;  metrics.jsonl  one line per step
    probes/step_00150/        with/NN.png and without/NN.png: the same prompts with and without the token
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from oblik.errors import NotFound
from oblik.packs.memory_plan import Configuration
from oblik.paths import atomic_write, sha256_file, versions
from oblik.personas.trigger import TokenProof
from oblik.training.config import TrainConfig
from oblik.training.judge import Judgement

if TYPE_CHECKING:
    from oblik.training.trainer import TrainRequest

WEIGHTS, TOKEN, TOKENIZER, MANIFEST, CURVES = (
    "lora.safetensors", "token.safetensors", "tokenizer/tokenizer.json", "lora.json", "training.json",
)  # fmt: skip
CHOSEN = "chosen"
"""The file in ``loras/`` that names the version to use."""
TEXT_ENCODER, METRICS, WORK = "text_encoder.safetensors", "metrics.jsonl", "work"


class LoraArtifact(BaseModel):
    """The manifest ``lora.json``. ``token_proof`` is of the tokenizer that lies beside it.

    ``steps`` is how many were taken, ``chosen_step`` after which of them the weights are these (None: after
    the last); ``passed`` is whether any checkpoint kept clear of bleed and copying (None: none was judged).
    ``parent`` is the persona's version before this one, ``device`` what it was trained on.
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
    chosen_step: int | None = None
    passed: bool | None = None
    text_encoder_sha256: str | None = None
    pack_lock_sha256: str | None = None
    parent: str | None = None
    device: str = ""
    peak_vram_bytes: int | None = None
    memory_plan: Configuration | None = None


def describe(request: TrainRequest, **found: Any) -> LoraArtifact:
    """The manifest of what lies in ``request.out_dir``; ``found`` are fields that the run itself knows."""
    pack, config = request.pack, request.config
    lock = pack.folder / "pack.lock"
    return LoraArtifact(
        persona=request.persona.slug,
        version=request.out_dir.name,
        pack=pack.manifest.name,
        pack_version=pack.manifest.version,
        dataset=request.dataset.version,
        dataset_sha256=sha256_file(request.dataset_dir / "dataset.json"),
        consent_sha256=request.dataset.consent_sha256,
        trigger=request.persona.trigger,
        class_noun=request.persona.class_noun,
        rank=config.rank,
        alpha=config.alpha,
        config=config,
        created_at=request.now,
        weights_sha256=sha256_file(request.out_dir / WEIGHTS),
        pack_lock_sha256=sha256_file(lock) if lock.is_file() else None,
        parent=request.parent,
        **found,
    )


class LossPoint(BaseModel):
    """One step of the curve; ``validation`` is set where it was measured.

    ``terms`` are the mean losses of the step's photos, of those shown without the token (``prior``), of class
    images and of negatives; those that the step had none of are absent.
    """

    step: int
    train: float
    validation: float | None = None
    stage: str = ""
    terms: dict[str, float] = {}


class TrainingLog(BaseModel):
    """The file ``training.json``. ``samples`` maps a step to a picture, relative to the artifact;
    ``replanned`` says what was given up each time that memory ran out."""

    losses: list[LossPoint]
    samples: dict[int, str] = {}
    judgements: list[Judgement] = []
    replanned: list[str] = []


def read_artifact(folder: Path) -> LoraArtifact:
    """Read ``folder/lora.json``."""
    return LoraArtifact.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))


def finished(loras: Path) -> list[str]:
    """Every finished version, oldest first."""
    return [name for name in versions(loras) if (loras / name / MANIFEST).is_file()]


def latest_artifact(loras: Path) -> str:
    """The version that is used when none is named: the one chosen with `choose`, else the newest finished.

    Raises NotFound when there is none.
    """
    known = finished(loras)
    if not known:
        raise NotFound("this persona has no trained LoRA yet", hint="oblik train")
    chosen = chosen_artifact(loras)
    return chosen if chosen in known else known[-1]


def chosen_artifact(loras: Path) -> str | None:
    """The version that somebody chose, None when the newest is meant."""
    file = loras / CHOSEN
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def choose(loras: Path, version: str | None) -> None:
    """Make a version the one that is used; None means the newest again. Raises NotFound."""
    if version is None:
        (loras / CHOSEN).unlink(missing_ok=True)
    elif version not in finished(loras):
        raise NotFound(f"there is no finished LoRA {version}", hint="oblik lora list")
    else:
        atomic_write(loras / CHOSEN, version + "\n")
