"""From a pack (and an artifact) on disk to a diffusers pipeline in memory.

In: an `OpenPack`, optionally the folder of a `LoraArtifact`, and how to hold the weights, which a memory plan
may decide (`plan_for`, `loading`, `settle`). Out: a plain pipeline of diffusers, opened by the pack's family.
Never goes online. With an artifact the pipeline has its tokenizers, its token's embeddings and its LoRA, and
every LoRA key is known to have matched. What differs between families stands in `families`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.logging import disable_progress_bar as disable_diffusers_bar
from transformers.utils.logging import disable_progress_bar as disable_transformers_bar

from oblik.diffusion import modulation, tokens
from oblik.diffusion.families.family import FAMILIES, Family, Packing, family_of
from oblik.diffusion.memory import architecture_of, make_plan
from oblik.diffusion.offload import keep_in_ram, move
from oblik.diffusion.quantize import AS_STORED, Quantisation, Scheme
from oblik.errors import BackendUnavailable, LoraBroken, PackBroken
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import PACKED_ON_CARD, Asked, Configuration, MemoryPlan
from oblik.training.artifact import TOKEN, read_artifact

TOKENIZERS = ("tokenizer", "tokenizer_2")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
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
    if pack.manifest.family not in FAMILIES:
        raise BackendUnavailable(
            f"pack {pack.manifest.name!r} is of the family {pack.manifest.family!r}: no loader knows it",
            hint="oblik pack list",
        )
    family = family_of(pack.manifest.family)
    try:
        pipeline = family.open(pack, Packing(dtype, how, device, text_how, text_on or device))
    except (OSError, ValueError) as broken:
        raise PackBroken(
            f"pack {pack.manifest.name!r} cannot be loaded: {broken}", hint="oblik pack verify"
        ) from broken
    if artifact is not None:
        _become(family(pipeline), pack, artifact)
    return pipeline if text_on else pipeline.to(device)


def _become(family: Family, pack: OpenPack, artifact: Path) -> None:
    manifest, pipeline = read_artifact(artifact), family.pipeline
    if manifest.pack != pack.manifest.name:
        raise LoraBroken(
            f"this LoRA was trained on the pack {manifest.pack!r}, not on {pack.manifest.name!r}",
            hint=f"oblik --pack {manifest.pack} generate ...",
        )
    if manifest.token_id >= 0:  # a LoRA by sd-scripts has no token of its own
        for name in TOKENIZERS:
            if (known := getattr(pipeline, name, None)) is not None:
                setattr(pipeline, name, type(known).from_pretrained(artifact / name, local_files_only=True))
        for name, encoder in family.encoders.items():
            key = tokens.KEY if len(family.encoders) == 1 else name
            tokens.load(encoder, manifest.token_id, artifact / TOKEN, key)
    family.load_lora(artifact)


def encoders_of(pipeline: Any) -> dict[str, Any]:
    """The text encoders that a pipeline has, by the names that it gives them."""
    found = {name: getattr(pipeline, name, None) for name in TEXT_ENCODERS}
    return {name: encoder for name, encoder in found.items() if encoder is not None}


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
    family: Family,
    choice: Configuration,
    times: torch.Tensor | None,
    *,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Bring an opened pipeline to the state that a plan counts on; text encoders are moved by the caller.

    ``times`` and ``rows`` are those of `modulation.bake`. In float32 and float16 no table serves every
    schedule, so there the modulation stays in RAM to be baked again (`modulation.ensure`).
    """
    family.drop_unread()
    family.pipeline.vae.enable_slicing()
    if choice.baked_modulation:
        assert times is not None
        source = None if dtype == torch.bfloat16 else modulation.parked(family.network)
        modulation.bake(family.network, times, rows=rows, source=source, device=device, dtype=dtype)
    if choice.offload_blocks:
        keep_in_ram(family.network, choice.offload_blocks, device)
    for part in (family.network, family.pipeline.vae):
        if part.device != device:
            move(part, device)
