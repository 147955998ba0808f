"""One-file weights: whose file it is, what its tensors are called, and that none is left over.

In: a pack's component and the folder it lies in, or the names found in a weights file. Out: the one file
with the right suffix; diffusers' names; an empty model of the pack's configuration. Never goes online: the
configuration is the pack's own ``config.json``, never guessed from the tensors.
Knows nothing of how the values are packed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from oblik.errors import PackBroken
from oblik.packs.manifest import Component

# What ComfyUI, stable-diffusion.cpp and trainers put before a transformer's names.
PREFIXES = ("model.diffusion_model.", "diffusion_model.")
# A tensor without weights: ComfyUI's mark of the Edit-2511 transformer, ``zero_cond_t`` in diffusers.
ZERO_TIMESTEP = "__index_timestep_zero__"


def only_file(folder: Path, component: Component, suffix: str) -> Path:
    """The component's one file with ``suffix``. Raises PackBroken."""
    found = [file.path for file in component.files if file.path.endswith(suffix)]
    if len(found) != 1:
        raise PackBroken(
            f"the format {component.format!r} is one {suffix} file; this component lists {len(found)}",
            hint="oblik pack verify",
        )
    path = folder / found[0]
    if not path.is_file():
        raise PackBroken(f"{found[0]} is missing", hint="oblik pack verify")
    return path


def own_name(name: str) -> str:
    """The name that diffusers gives to the transformer's tensor ``name``."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """``folder/config.json``. Raises PackBroken."""
    try:
        config: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise PackBroken(
            f"{folder.name} needs its {name} beside the weights: {broken}", hint="oblik pack verify"
        ) from broken
    return config


def empty_transformer(family: Any, folder: Path) -> Any:
    """The transformer of ``folder/config.json`` with its parameters on the meta device."""
    config = read_config(folder)
    with init_empty_weights():
        return family.from_config(config)


def drop_marks(names: Collection[str], config: Any, file: Path) -> set[str]:
    """``names`` without those that only mark a variant.

    Raises:
        PackBroken: the file is of a variant that the configuration is not.
    """
    if ZERO_TIMESTEP in names and not getattr(config, "zero_cond_t", False):
        raise PackBroken(
            f"{file.name} is a transformer with zero_cond_t (Edit-2511); its config.json says otherwise",
            hint="oblik pack verify",
        )
    return set(names) - {ZERO_TIMESTEP}


def check_names(found: Collection[str], expected: Collection[str], file: Path) -> None:
    """Every tensor has its place and every place its tensor. Raises PackBroken."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        example = f"no {missing[0]}" if missing else f"{unknown[0]} has no place"
        raise PackBroken(
            f"{file.name} does not fit its config.json: {len(missing)} tensors missing, "
            f"{len(unknown)} unknown, for example {example}",
            hint="oblik pack verify",
        )


def empty_text_encoder(family: Any, folder: Path) -> Any:
    """The text encoder of ``folder/config.json``, headless, with its parameters on the meta device."""
    config = family.config_class.from_dict(read_config(folder))
    with init_empty_weights():
        encoder = family._from_config(config)
    encoder.lm_head = nn.Identity()
    encoder.get_output_embeddings = lambda: None
    return encoder


def text_encoder_name(name: str) -> str:
    """transformers' name for the tensor ``name`` of a Qwen2.5-VL file of ComfyUI or older transformers.

    Empty for the output head: pictures are made from the states before it.
    """
    if name.startswith("lm_head."):
        return ""
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith(("model.layers.", "model.embed_tokens.", "model.norm.")):
        return name.replace("model.", "model.language_model.", 1)
    return name
