"""The 16 GB plan: bytes of every stage, counted before anything is loaded.

In: a pack's configurations (or those published for its family), and what is asked: train or generate, size,
a card's bytes. Out: a `MemoryPlan`: the first configuration that fits, in the order of what it gives up, with
the smaller ones behind it, for whoever runs out of memory all the same. Knows nothing of cards: what drivers
and kernels take for themselves is the constant `RESERVE_BYTES`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import torch

from oblik.diffusion.families.family import family_of
from oblik.diffusion.memory_count import Architecture
from oblik.errors import BackendUnavailable, NotFound, OutOfMemory
from oblik.packs import memory_plan as noun
from oblik.packs.manifest import Component, OpenPack
from oblik.packs.memory_plan import GIB, Asked, Configuration, MemoryPlan, Stage

ARCHITECTURES = Path(noun.__file__).parent / "architectures"
RESERVE_BYTES = GIB  # the driver's context, libraries' workspaces, fragmentation: taken, not measured

Result = TypeVar("Result")


# From nothing lost to most lost. A judgement by bits for each weight, not a measurement of pictures.
TRANSFORMER_FORMATS = (
    ("diffusers", "diffusers"), ("gguf-q8_0", "gguf-q8_0"), ("torchao-int8", "torchao-int8"),
    ("gguf-q6_k", "gguf-q6_k"), ("torchao-fp8", "torchao-fp8"), ("fp8", "fp8"),
    ("torchao-int8", "torchao-int4"), ("gguf-q4_k", "gguf-q4_k"), ("bnb-nf4", "bnb-nf4"),
    ("torchao-int4", "torchao-int4"),
)  # fmt: skip
NETWORKS, TEXT_ENCODERS = ("transformer", "unet"), ("text_encoder", "text_encoder_2")


def architecture_of(name: str, pack: OpenPack | None) -> Architecture:
    """Of a pack on this machine, or of the family whose published configurations are kept here.

    Raises:
        NotFound: no such pack, and none is known by that name.
        BackendUnavailable: the pack is of a family that is not planned.
    """
    files = sorted(ARCHITECTURES.glob("*.json"))
    families = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if pack is None:
        for known in families:
            if name in known["packs"]:
                return _architecture(known, known["packs"][name], known["dtype"])
        names = ", ".join(name for known in families for name in known["packs"])
        raise NotFound(f"there is no pack called {name!r}", hint=f"known without its files: {names}")
    known = next((each for each in families if each["family"] == pack.manifest.family), None)
    if known is None:
        raise BackendUnavailable(
            f"pack {name!r} is of the family {pack.manifest.family!r}, which is not planned",
            hint="oblik plan qwen-image-16gb",
        )
    parts = pack.manifest.components
    formats = [_format_of(part) for key, part in parts.items() if key.startswith(NETWORKS)]
    found = {
        key: json.loads(path.read_text(encoding="utf-8"))
        for key in (*NETWORKS, *TEXT_ENCODERS, "vae")
        if (path := config_file(pack, key)).is_file()
    }
    dtype = str(pack.manifest.defaults.get("dtype", known["dtype"]))
    eyes = family_of(pack.manifest.family).keeps_eyes(pack)
    return replace(_architecture({**known, **found}, formats or ["diffusers"], dtype), eyes=eyes)


def config_file(pack: OpenPack, key: str) -> Path:
    """The configuration of a component; an editing transformer's lies elsewhere in the pack."""
    part = pack.manifest.components.get(key)
    named = [file.path for file in part.files if file.path.endswith("config.json")] if part else []
    return pack.folder / (named[0] if named else f"{key}/config.json")


def _format_of(part: Component) -> str:
    """A component's format as the planner calls it: of GGUF also which, by its file's name."""
    kinds = [kind for kind in ("q8_0", "q6_k", "q4_k") for file in part.files if kind in file.path.lower()]
    return f"{part.format}-{kinds[0]}" if part.format == "gguf" and kinds else part.format


def _architecture(configs: dict[str, Any], formats: list[str], dtype: str) -> Architecture:
    made = family_of(configs["family"]).made_from_folder if "diffusers" in formats else ()
    network = next(name for name in NETWORKS if name in configs)
    parts = [json.dumps(configs.get(key), sort_keys=True) for key in (network, *TEXT_ENCODERS, "vae")]
    second = parts[2] if TEXT_ENCODERS[1] in configs else ""
    every = tuple(dict.fromkeys([*formats, *made]))
    return Architecture(parts[0], parts[1], parts[3], dtype, every, configs["family"], second)


def make_plan(
    architecture: Architecture, asked: Asked, allowed: Callable[[Configuration], bool] = lambda _: True
) -> MemoryPlan:
    """The first allowed configuration that fits; its ``smaller`` are the rest.

    Raises:
        OutOfMemory: none fits, not even with all blocks in RAM.
    """
    count = family_of(architecture.family).count
    counted = replace(count(architecture, asked.model_copy(update={"vram_bytes": 1})), asked=asked)
    usable = asked.vram_bytes - RESERVE_BYTES
    every = [counted.plan(each, usable) for each in configurations(architecture, asked) if allowed(each)]
    offloaded = [counted.offloaded(plan) for plan in every if not plan.fits]
    moved = sorted(
        (plan for plan in offloaded if plan is not None),
        key=lambda plan: plan.configuration.offload_blocks * counted.block_bytes(plan.configuration),
    )
    chosen = noun.in_order([plan for plan in every if plan.fits] + moved)
    if chosen is None:
        raise OutOfMemory(
            f"{asked.pack} does not fit into {asked.vram_bytes / GIB:.1f} GiB in any configuration",
            hint=f"oblik plan {asked.pack} --size 512x512 --batch 1",
        )
    return chosen


def configurations(architecture: Architecture, asked: Asked) -> Iterator[Configuration]:
    """All choices without offload; what stands further left in the product is given up later."""
    training, family = asked.purpose == "train", family_of(architecture.family)
    pairs = [pair for pair in TRANSFORMER_FORMATS if set(pair) <= set(architecture.formats)]
    batches = [asked.batch // 2**halved for halved in range(asked.batch.bit_length())]
    for (attention, mlp), text, optimiser, baked, place, batch in product(
        pairs,
        (*family.text_formats, None),
        ("adamw", "adamw8bit"),
        (False, True),
        ("stays", "freed"),
        batches,
    ):
        on_cpu = text is None
        if baked and not family.bakes:
            continue
        if (on_cpu and (training or place == "freed")) or (not training and optimiser != "adamw"):
            continue
        yield Configuration(
            attention=attention, mlp=mlp, baked_modulation=baked, text_encoder=text or "diffusers",
            text_encoder_place="cpu" if on_cpu else place, optimiser=optimiser, batch=batch,
        )  # fmt: skip


def with_replanning(
    run: Callable[[MemoryPlan, Callable[[Stage], None]], Result],
    plan: MemoryPlan,
    note: Callable[[str], None],
) -> Result:
    """Run by the plan; when memory runs out, by the next one. ``run`` says which stage it enters.

    Raises:
        OutOfMemory: no smaller plan is left.
    """
    at = [plan.stages[0].stage]

    def enter(stage: Stage) -> None:
        at[0] = stage

    while True:
        try:
            return run(plan, enter)
        except (torch.OutOfMemoryError, OutOfMemory):
            pass  # the error holds the frames that hold the tensors: it must be gone before the next run
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        plan = noun.replan(plan, at[0])
        note(f"out of memory in {at[0]!r}; going on with a smaller plan. {plan.gave_up}")
