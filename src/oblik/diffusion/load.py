"""From a pack (and an artifact) on disk to a diffusers pipeline in memory.

In: an `OpenPack`, optionally the folder of a `LoraArtifact`, and how to hold the weights. Out: a plain
`QwenImagePipeline`. Never goes online. A component that is stored packed, or packed as it is read, comes
from `quantize`; the rest from the pack's folder as diffusers reads it. With an artifact the pipeline has
its tokenizer, its token's embedding and its LoRA, and every LoRA key is known to have matched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from diffusers.utils.logging import disable_progress_bar as disable_diffusers_bar
from transformers import Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar as disable_transformers_bar

from oblik.diffusion import lora, text_lora, tokens
from oblik.diffusion.quantize import AS_STORED, Quantisation, Scheme, load_text_encoder, load_transformer
from oblik.errors import BackendUnavailable, LoraBroken, PackBroken
from oblik.packs.manifest import OpenPack
from oblik.training.artifact import TEXT_ENCODER, TOKEN, TOKENIZER, WEIGHTS, read_artifact

FAMILIES = {"qwen_image": QwenImagePipeline}


def open_pipeline(
    pack: OpenPack,
    artifact: Path | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
    how: Quantisation = AS_STORED,
    text_how: Scheme = "none",
) -> Any:
    """Load the pack's pipeline; with ``artifact`` as this person's.

    ``how`` packs the transformer's blocks and ``text_how`` the text encoder's as they are read.

    Raises:
        BackendUnavailable: the pack's family or a format has no loader here.
        InvalidInput: a file that is stored packed would be packed again.
        PackBroken: a file of the pack is missing or unreadable.
        LoraBroken: the artifact belongs to another pack or its keys do not fit.
    """
    disable_diffusers_bar()
    disable_transformers_bar()
    family = FAMILIES.get(pack.manifest.family)
    if family is None:
        raise BackendUnavailable(
            f"pack {pack.manifest.name!r} is of the family {pack.manifest.family!r}: no loader knows it",
            hint="oblik pack list",
        )
    try:
        parts = _packed_parts(pack, how, text_how, dtype, device)
        pipeline = family.from_pretrained(pack.folder, dtype=dtype, local_files_only=True, **parts)
    except (OSError, ValueError) as broken:
        raise PackBroken(
            f"pack {pack.manifest.name!r} cannot be loaded: {broken}", hint="oblik pack verify"
        ) from broken
    if artifact is not None:
        _become(pipeline, pack, artifact)
    return pipeline.to(device)


def _packed_parts(
    pack: OpenPack, how: Quantisation, text_how: Scheme, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """The components that diffusers does not read from the folder by itself."""
    parts = {}
    components = pack.manifest.components
    transformer, text_encoder = components.get("transformer"), components.get("text_encoder")
    if transformer and (transformer.format != "diffusers" or how.by_part):
        parts["transformer"] = load_transformer(pack.folder, transformer, how, dtype=dtype, device=device)
    if text_encoder and (text_encoder.format != "diffusers" or text_how != "none"):
        parts["text_encoder"] = load_text_encoder(
            pack.folder, text_encoder, text_how, dtype=dtype, device=device
        )
    return parts


def _become(pipeline: Any, pack: OpenPack, artifact: Path) -> None:
    manifest = read_artifact(artifact)
    if manifest.pack != pack.manifest.name:
        raise LoraBroken(
            f"this LoRA was trained on the pack {manifest.pack!r}, not on {pack.manifest.name!r}",
            hint=f"oblik --pack {manifest.pack} generate ...",
        )
    pipeline.tokenizer = Qwen2Tokenizer.from_pretrained((artifact / TOKENIZER).parent, local_files_only=True)
    tokens.load(pipeline.text_encoder, manifest.token_id, artifact / TOKEN)
    text_lora.load({"qwen25_7b": pipeline.text_encoder}, artifact / TEXT_ENCODER)
    lora.load(pipeline, artifact / WEIGHTS)
