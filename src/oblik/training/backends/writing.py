"""What is left of a run: the artifact.

In: a finished run and the step that was chosen. Out: weights, token, curves and the manifest, which comes
last: a folder with a manifest is complete. Knows nothing of how it was trained.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from oblik.paths import atomic_write, sha256_file
from oblik.personas.trigger import check
from oblik.training.artifact import CURVES, MANIFEST, TEXT_ENCODER, TOKEN, TOKENIZER, WEIGHTS, LoraArtifact

if TYPE_CHECKING:
    from oblik.training.backends.run import Run

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy")


def write_artifact(run: Run, chosen: int | None) -> None:
    """Write everything; then the work folder is destroyed."""
    request, config, folder = run.request, run.config, run.out_dir
    run.learner.export(folder, modelspec(run))
    atomic_write(folder / CURVES, run.log.model_dump_json(indent=1) + "\n")
    lock = request.pack.folder / "pack.lock"
    text = folder / TEXT_ENCODER
    manifest = LoraArtifact(
        persona=request.persona.slug,
        version=folder.name,
        pack=request.pack.manifest.name,
        pack_version=request.pack.manifest.version,
        dataset=request.dataset.version,
        dataset_sha256=sha256_file(request.dataset_dir / "dataset.json"),
        consent_sha256=request.dataset.consent_sha256,
        trigger=request.persona.trigger,
        token_id=run.token_id,
        class_noun=request.persona.class_noun,
        rank=config.rank,
        alpha=config.alpha,
        targets=config.targets,
        steps=len(run.log.losses),
        config=config,
        created_at=request.now,
        seconds=round(run.seconds, 1),
        weights_sha256=sha256_file(folder / WEIGHTS),
        token_sha256=sha256_file(folder / TOKEN),
        token_proof=check(folder / TOKENIZER, request.persona.trigger),
        libraries={name: version(name) for name in LIBRARIES},
        chosen_step=chosen,
        text_encoder_sha256=sha256_file(text) if text.is_file() else None,
        pack_lock_sha256=sha256_file(lock) if lock.is_file() else None,
        parent=request.parent,
        device=_device_name(run.family.device),
        peak_vram_bytes=run.metrics.vram_bytes(),
        memory_plan=run.planned.plan.configuration if run.planned else None,
    )
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    run.checkpoints.finish()


def modelspec(run: Run) -> dict[str, str]:
    """The header that other programs show (Stability's ModelSpec 1.0): strings only."""
    pack, persona = run.request.pack.manifest, run.request.persona
    side = pack.native_size_px
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{pack.family}/lora",
        "modelspec.title": f"{persona.slug} {run.out_dir.name}",
        "modelspec.trigger_phrase": f"{persona.trigger} {persona.class_noun}",
        "modelspec.date": run.request.now.isoformat(),
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.implementation": "oblik",
        "modelspec.usage_hint": "the token's embedding lies in token.safetensors",
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
