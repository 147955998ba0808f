"""Stable Diffusion packs on the disk: random weights, but files and names as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.training.tiny import open_tiny, sd_pack

from oblik.packs.manifest import Component, OpenPack, Pack

CPU = torch.device("cpu")
BETAS = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False,
}  # fmt: skip


def write_pack(folder: Path, name: str) -> OpenPack:
    """``tiny-sd``, ``tiny-v`` or ``tiny-xl`` as a diffusers folder."""
    folder.mkdir()
    pipeline = open_tiny(sd_pack(folder, name), torch.float32, CPU)
    pipeline.save_pretrained(folder)
    predicts = "v_prediction" if name == "tiny-v" else "epsilon"
    write(folder / "scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler", **BETAS, "prediction_type": predicts})
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    if name != "tiny-xl":  # named, and not there
        index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    write(folder / "model_index.json", index)
    names = [part for part in index if (folder / part).is_dir()]
    for part in names:
        if part.startswith("tokenizer"):
            _as_published(folder / part)
    component = Component(source="test", licence="none", commercial_use=False, files=[])
    manifest = Pack(
        name=name, version="1", family="stable_diffusion", native_size_px=32, side_multiple_px=8,
        defaults={"dtype": "float32", "guidance": 7.0}, components=dict.fromkeys(names, component),
    )  # fmt: skip
    return OpenPack(manifest=manifest, folder=folder)


def _as_published(folder: Path) -> None:
    """Vocabulary and merges in files of their own, and a ``tokenizer.json`` beside them from elsewhere."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    write(folder / "vocab.json", model["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{' '.join(m)}\n" for m in model["merges"]))
    end, pad = "<|endoftext|>", "!" if folder.name == "tokenizer_2" else "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": pad}
    write(folder / "special_tokens_map.json", special)
    old = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer", **special}
    write(folder / "tokenizer_config.json", old)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
