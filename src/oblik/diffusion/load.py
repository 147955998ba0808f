"""From a pack (and an artifact) on disk to a diffusers pipeline in memory.

In: an `OpenPack`, optionally the folder of a `LoraArtifact`, and how to hold the weights, which a memory plan
may decide (`plan_for`, `loading`, `settle`). Out: a plain `QwenImagePipeline`. Never goes online. A component
that is stored packed, or packed as it is read, comes from `quantize`; the rest from the pack's folder as
diffusers reads it. With an artifact the pipeline has its tokenizer, its token's embedding and its LoRA, and
every LoRA key is known to have matched.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from diffusers.utils.logging import disable_progress_bar as disable_diffusers_bar
from transformers import Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar as disable_transformers_bar

from oblik.diffusion import lora, modulation, text_lora, tokens
from oblik.diffusion.live_bytes import text_only
from oblik.diffusion.memory import architecture_of, make_plan
from oblik.diffusion.offload import keep_in_ram, move
from oblik.diffusion.quantize import AS_STORED, Quantisation, Scheme, load_text_encoder, load_transformer
from oblik.errors import BackendUnavailable, LoraBroken, PackBroken
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import PACKED_ON_CARD, Asked, Configuration, MemoryPlan
from oblik.training.artifact import TEXT_ENCODER, TOKEN, TOKENIZER, WEIGHTS, read_artifact

FAMILIES = {"qwen_image": QwenImagePipeline}
RAM = torch.device("cpu")


def open_pipeline(
    pack: OpenPack,
    artifact: Path | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
    how: Quantisation = AS_STORED,
    text_how: Scheme = "none",
    text_on: torch.device | None = None,
) -> Any:
    """Load the pack's pipeline; with ``artifact`` as this person's.

    ``how`` packs the transformer's blocks and ``text_how`` the text encoder's as they are read. With
    ``text_on``, where a text encoder is packed, what was not packed on ``device`` stays in RAM for `settle`.

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
        parts = _packed_parts(pack, how, text_how, dtype, (device, text_on or device))
        pipeline = family.from_pretrained(pack.folder, dtype=dtype, local_files_only=True, **parts)
    except (OSError, ValueError) as broken:
        raise PackBroken(
            f"pack {pack.manifest.name!r} cannot be loaded: {broken}", hint="oblik pack verify"
        ) from broken
    if artifact is not None:
        _become(pipeline, pack, artifact)
    return pipeline if text_on else pipeline.to(device)


def _packed_parts(
    pack: OpenPack, how: Quantisation, text_how: Scheme, dtype: torch.dtype,
    devices: tuple[torch.device, torch.device],
) -> dict[str, Any]:  # fmt: skip
    """The components that diffusers does not read from the folder by itself."""
    parts = {}
    components = pack.manifest.components
    transformer, text_encoder = components.get("transformer"), components.get("text_encoder")
    if transformer and (transformer.format != "diffusers" or how.by_part):
        parts["transformer"] = load_transformer(pack.folder, transformer, how, dtype=dtype, device=devices[0])
    if text_encoder and (text_encoder.format != "diffusers" or text_how != "none"):
        parts["text_encoder"] = load_text_encoder(
            pack.folder, text_encoder, text_how, dtype=dtype, device=devices[1]
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


def plan_for(
    pack: OpenPack,
    *,
    device: torch.device,
    vram_bytes: int | None,
    dtype: str,
    bakes: bool = True,
    **asked: Any,
) -> MemoryPlan | None:
    """The plan for what is asked of ``device``; None where there is no card and no ``vram_bytes`` are given.

    Only what this machine can do is planned: formats whose packages are here.

    Raises:
        OutOfMemory: nothing of that fits.
        BackendUnavailable: ``vram_bytes`` are given for a family that is not planned.
    """
    if vram_bytes is None and (device.type != "cuda" or pack.manifest.family not in FAMILIES):
        return None
    name = pack.manifest.name
    vram_bytes = vram_bytes or int(torch.cuda.get_device_properties(device).total_memory)
    architecture = replace(architecture_of(name, pack), dtype=dtype)

    def allowed(choice: Configuration) -> bool:
        return (bakes or not choice.baked_modulation) and _can_hold(choice, pack, device)

    return make_plan(architecture, Asked(pack=name, vram_bytes=vram_bytes, **asked), allowed)


def _can_hold(choice: Configuration, pack: OpenPack, device: torch.device) -> bool:
    """Whether the packages and the device that a configuration needs are here."""
    formats = {choice.attention, choice.mlp, choice.text_encoder}
    stored = pack.manifest.components.get("text_encoder")
    if stored and stored.format != "diffusers" and choice.text_encoder != "diffusers":
        return False  # its file is packed already
    needed = {name.partition("-")[0] for name in formats} - {"diffusers", "fp8"}
    needed |= {"bnb"} if choice.optimiser == "adamw8bit" else set()
    needed |= {"mslk"} if "torchao-int4" in formats and device.type == "cuda" else set()
    if "bnb" in needed and device.type != "cuda":
        return False
    return all(find_spec({"bnb": "bitsandbytes"}.get(name, name)) for name in needed)


def loading(choice: Configuration, device: torch.device) -> tuple[torch.device, dict[str, Any]]:
    """Where to load for a configuration, and `open_pipeline`'s options (none where nothing is packed).

    A transformer that will be baked waits in RAM, its modulation unpacked; one whose blocks stay in RAM is
    never whole on the card. int4 and NF4 are packed on the card only, there with their modulation.
    """
    attention, mlp, text = (
        name if name.startswith(("torchao", "bnb")) else "none"
        for name in (choice.attention, choice.mlp, choice.text_encoder)
    )
    unbaked = choice.baked_modulation and not {attention, mlp} & PACKED_ON_CARD
    place = RAM if unbaked or choice.offload_blocks else device
    if place.type == "cpu" and {attention, mlp, text} == {"none"}:
        return place, {}
    how = Quantisation.model_validate(
        {"attention": attention, "mlp": mlp, "modulation": "none" if unbaked else attention}
    )
    text_on = device if text in PACKED_ON_CARD else RAM
    return place, {"how": how, "text_how": text, "text_on": text_on}


def settle(
    pipeline: Any,
    choice: Configuration,
    times: torch.Tensor,
    *,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Bring an opened pipeline to the state that a plan counts on; the text encoder is moved by the caller.

    ``times`` and ``rows`` are those of `modulation.bake`. In float32 and float16 no table serves every
    schedule, so there the modulation stays in RAM to be baked again (`modulation.ensure`).
    """
    text_only(pipeline.text_encoder)
    pipeline.text_encoder.get_output_embeddings = lambda: None
    pipeline.vae.enable_slicing()
    if choice.baked_modulation:
        source = None if dtype == torch.bfloat16 else modulation.parked(pipeline.transformer)
        modulation.bake(pipeline.transformer, times, rows=rows, source=source, device=device, dtype=dtype)
    if choice.offload_blocks:
        keep_in_ram(pipeline.transformer, choice.offload_blocks, device)
    for part in (pipeline.transformer, pipeline.vae):
        if part.device != device:
            move(part, device)
