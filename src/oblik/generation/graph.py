"""``graph.json``: a plan as a graph of ComfyUI's stock nodes, beside its record.

In: a plan, the pack it ran on. Out: what ComfyUI's ``POST /prompt`` takes as ``prompt``, one sampler for each
seed. It says the same plan in another program's words: model files go by the pack's names and must lie in
that program's folders, and a seed means other noise there, so its pictures are alike, not equal. What stock
nodes cannot do (a learned token of Qwen-Image, reference adapters, controls, edits) stands in the samplers'
titles. Knows nothing of servers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from oblik.generation.engine import picture_name
from oblik.generation.plan import Plan
from oblik.packs.manifest import OpenPack
from oblik.paths import atomic_write

FILE_NAME = "graph.json"
WEIGHTS = (".safetensors", ".gguf", ".ckpt")
NAMELESS = ("diffusion_pytorch_model", "model")
LATENT_TOKEN_PX = 16
Graph = dict[str, dict[str, Any]]
Link = list[str | int]


def write_graph(plan: Plan, pack: OpenPack, folder: Path) -> Path | None:
    """Write ``folder/graph.json``; None for a family that ComfyUI has no stock nodes for."""
    if pack.manifest.family not in ("qwen_image", "stable_diffusion"):
        return None
    path = folder / FILE_NAME
    atomic_write(path, json.dumps(graph_of(plan, pack), indent=1) + "\n")
    return path


def graph_of(plan: Plan, pack: OpenPack) -> Graph:
    """Loaders, the two prompts, then for each seed a sampler, a decoder and a file."""
    made = _Graph()
    sd = pack.manifest.family == "stable_diffusion"
    model, clip, vae = (_checkpoint if sd else _parts)(made, plan, pack)
    positive, negative = (
        made.add("CLIPTextEncode", text=text, clip=clip) for text in (plan.prompt, plan.negative_prompt)
    )
    blank = made.add(
        "EmptyLatentImage" if sd else "EmptySD3LatentImage",
        width=plan.width_px, height=plan.height_px, batch_size=1,
    )  # fmt: skip
    title = "; ".join(["as planned", *(f"without {thing}" for thing in _untold(plan, sd))])
    for place, seed in enumerate(plan.seeds, start=1):
        sampled = made.add(
            "KSampler", title=title, model=model, positive=positive, negative=negative, latent_image=blank,
            seed=seed, steps=plan.steps, cfg=plan.guidance, sampler_name=plan.sampler,
            scheduler="normal" if sd else "simple", denoise=1.0,
        )  # fmt: skip
        decoded = made.add("VAEDecode", samples=sampled, vae=vae)
        name = PurePosixPath(picture_name(place, seed)).stem
        made.add("SaveImage", images=decoded, filename_prefix=name)
    return made.nodes


class _Graph:
    """Nodes under the numbers that links use."""

    def __init__(self) -> None:
        self.nodes: Graph = {}

    def add(self, class_type: str, title: str = "", **inputs: Any) -> Link:
        """A node; the link to its first output."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": class_type, "inputs": inputs}
        if title:
            self.nodes[number]["_meta"] = {"title": title}
        return [number, 0]


def _parts(made: _Graph, plan: Plan, pack: OpenPack) -> tuple[Link, Link, Link]:
    """Qwen-Image: transformer, text encoder and VAE are files of their own; the LoRA is the transformer's."""
    name = _file(pack, "transformer")
    if name.endswith(".gguf"):
        model = made.add("UnetLoaderGGUF", unet_name=name)
    else:
        model = made.add("UNETLoader", unet_name=name, weight_dtype="default")
    clip = made.add("CLIPLoader", clip_name=_file(pack, "text_encoder"), type="qwen_image")
    vae = made.add("VAELoader", vae_name=_file(pack, "vae"))
    if plan.lora:
        model = made.add(
            "LoraLoaderModelOnly", model=model, lora_name=_lora(plan), strength_model=plan.lora_scale
        )
    return made.add("ModelSamplingAuraFlow", model=model, shift=shift(plan, pack)), clip, vae


def _checkpoint(made: _Graph, plan: Plan, pack: OpenPack) -> tuple[Link, Link, Link]:
    """Stable Diffusion: one checkpoint; the LoRA is the UNet's and the text encoder's."""
    model = made.add("CheckpointLoaderSimple", ckpt_name=f"{pack.manifest.name}.safetensors")
    number = model[0]
    clip: Link = [number, 1]
    if plan.lora:
        model = made.add(
            "LoraLoader", model=model, clip=clip, lora_name=_lora(plan), strength_model=plan.lora_scale,
            strength_clip=plan.lora_scale,
        )  # fmt: skip
        clip = [model[0], 1]
    return model, clip, [number, 2]


def shift(plan: Plan, pack: OpenPack) -> float:
    """The schedule's shift at this size: exp(mu), mu linear in the number of latent tokens, as in diffusers'
    ``calculate_shift``; the pack's own where its scheduler does not shift by size."""
    file = pack.folder / "scheduler" / "scheduler_config.json"
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not told.get("use_dynamic_shifting", True):
        return float(told.get("shift", 1.0))
    few, many = told.get("base_image_seq_len", 256), told.get("max_image_seq_len", 8192)
    low, high = told.get("base_shift", 0.5), told.get("max_shift", 0.9)
    tokens = plan.width_px * plan.height_px / LATENT_TOKEN_PX**2
    return round(math.exp(low + (high - low) * (tokens - few) / (many - few)), 4)


def _lora(plan: Plan) -> str:
    """The name under which `oblik lora install` puts it there."""
    return f"{plan.persona}-{plan.lora}.safetensors"


def _file(pack: OpenPack, part: str) -> str:
    """The name of a part's weights; of the pack and the part where they have no name of their own."""
    known = pack.manifest.components.get(part)
    files = [PurePosixPath(file.path) for file in known.files] if known else []
    weights = [file for file in files if file.suffix in WEIGHTS]
    if len(weights) == 1 and weights[0].stem not in NAMELESS:
        return weights[0].name
    return f"{pack.manifest.name}-{part}.safetensors"


def _untold(plan: Plan, sd: bool) -> Iterator[str]:
    if plan.lora and not sd:
        yield "the learned token"
    for name in ("references", "controls", "edit"):
        if getattr(plan, name):
            yield f"the {name}"
