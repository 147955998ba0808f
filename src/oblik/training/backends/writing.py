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
from oblik.training.artifact import CURVES, MANIFEST, TEXT_ENCODER, TOKEN, TOKENIZER, describe
from oblik.training.judge import best

if TYPE_CHECKING:
    from oblik.training.backends.run import Run

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy")


def write_artifact(run: Run, chosen: int | None) -> None:
    """Write everything, the manifest last; the work folder stays for whoever ends the run."""
    request, config, folder = run.request, run.config, run.out_dir
    run.learner.export(folder, modelspec(run))
    atomic_write(folder / CURVES, run.log.model_dump_json(indent=1) + "\n")
    text = folder / TEXT_ENCODER
    manifest = describe(
        request,
        token_id=run.token_id,
        targets=config.targets,
        steps=len(run.log.losses),
        seconds=round(run.seconds, 1),
        token_sha256=sha256_file(folder / TOKEN),
        token_proof=check(folder / TOKENIZER, request.persona.trigger),
        libraries={name: version(name) for name in LIBRARIES},
        chosen_step=chosen,
        passed=best(run.log.judgements) is not None if run.log.judgements else None,
        text_encoder_sha256=sha256_file(text) if text.is_file() else None,
        device=_device_name(run.family.device),
        peak_vram_bytes=run.metrics.vram_bytes(),
        memory_plan=run.planned.plan.configuration if run.planned else None,
    )
    atomic_write(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


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
