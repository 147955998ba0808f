"""Stable Diffusion packs on the disk: random weights, but files and names as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.training.tiny import open_tiny, sd_pack

from oblik.packs.manifest import Component, OpenPack, Pack, PackFile

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
    write(
        folder / "scheduler/scheduler_config.json",
        {"_class_name": "PNDMScheduler", **BETAS, "prediction_type": predicts},
    )
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
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{' '.join(m)}\n" for m in model["merges"])
    )
    end, pad = "<|endoftext|>", "!" if folder.name == "tokenizer_2" else "<|endoftext|>"
    special = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": pad}
    write(folder / "special_tokens_map.json", special)
    old = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer", **special}
    write(folder / "tokenizer_config.json", old)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def as_checkpoint(pack: OpenPack) -> OpenPack:
    """The pack with all its weights in one file, under the names of the first Stable Diffusion."""
    is_xl = (pack.folder / "text_encoder_2").is_dir()
    names = {
        "unet": (_unet_name, "model.diffusion_model."),
        "vae": (_vae_name, "first_stage_model."),
        "text_encoder": (
            _clip_name,
            f"{'conditioner.embedders.0' if is_xl else 'cond_stage_model'}.transformer.",
        ),
        "text_encoder_2": (_open_clip_name, "conditioner.embedders.1.model."),
    }
    tensors = {}
    for part, (rename, prefix) in names.items():
        for file in (pack.folder / part).glob("*.safetensors"):
            for name, value in load_file(file).items():
                attention = part == "vae" and "attentions" in name and value.ndim == 2
                tensors[prefix + rename(name)] = value[..., None, None].clone() if attention else value
            file.unlink()
    for key in [key for key in tensors if "q_proj" in key and "model.transformer.resblocks" in key]:
        kinds = [key.replace("q_proj.", f"{kind}_proj.") for kind in "qkv"]
        tensors[key.replace("q_proj.", "in_proj_")] = torch.cat([tensors.pop(kind) for kind in kinds])
    if is_xl:
        projection = "conditioner.embedders.1.model.text_projection"
        tensors[projection] = tensors[projection].T.contiguous()
    save_file(tensors, pack.folder / "model.safetensors")
    files = [PackFile(path="model.safetensors", bytes=0, sha256="")]
    whole = pack.manifest.components["unet"].model_copy(update={"format": "checkpoint", "files": files})
    manifest = pack.manifest.model_copy(update={"components": {"checkpoint": whole}})
    return OpenPack(manifest=manifest, folder=pack.folder)


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def _unet_name(name: str) -> str:
    """With one layer a block."""
    for ours, theirs in OUTSIDE.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    parts = name.split(".")
    if parts[0] == "mid_block":
        kind, place, rest = parts[1], int(parts[2]), parts[3:]
        start = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * place}"
    else:
        block, kind, place, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if kind == "downsamplers":
            return f"input_blocks.{2 * block + 2}.0.op.{rest[1]}"
        if kind == "upsamplers":
            return f"output_blocks.{2 * block + 1}.{2 if block == 0 else 1}.conv.{rest[1]}"
        first = (
            f"input_blocks.{2 * block + place + 1}"
            if parts[0] == "down_blocks"
            else f"output_blocks.{2 * block + place}"
        )
        start = f"{first}.{int(kind == 'attentions')}"
    if kind == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    return ".".join([start, *rest])


def _vae_name(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts:
        known = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
        return f"{parts[0]}.mid.attn_1.{known[parts[4]]}.{parts[-1]}"
    if "mid_block" in parts:
        name = f"{parts[0]}.mid.block_{int(parts[3]) + 1}.{'.'.join(parts[4:])}"
    elif len(parts) > 2 and parts[1] in ("down_blocks", "up_blocks"):
        up = parts[1] == "up_blocks"
        level = f"{parts[0]}.{'up' if up else 'down'}.{3 - int(parts[2]) if up else parts[2]}"
        inner = (
            f"block.{'.'.join(parts[4:])}"
            if parts[3] == "resnets"
            else f"{'up' if up else 'down'}sample.{'.'.join(parts[5:])}"
        )
        name = f"{level}.{inner}"
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def _clip_name(name: str) -> str:
    return f"text_model.{name.removeprefix('text_model.')}"


OPEN_CLIP = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm.": "ln_final.", "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", ".fc1.": ".c_fc.", ".fc2.": ".c_proj.",
    ".self_attn.": ".attn.", "text_projection.weight": "text_projection",
}  # fmt: skip


def _open_clip_name(name: str) -> str:
    for ours, theirs in OPEN_CLIP.items():
        name = name.replace(ours, theirs)
    return name
