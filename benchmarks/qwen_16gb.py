"""Does the 20B Qwen-Image train and draw within 16 GiB, and how fast?

The true architecture with random weights, made block by block on the GPU in the formats that the planner
chooses (of those whose library is installed: torchao, bitsandbytes), modulation baked, the allocator capped.
Measures peak memory and seconds of a training step (rank 16, gradient checkpointing, one photo) and of a
picture (30 steps with guidance, VAE included) at 768 px. Text states are random: the text encoder's own
stages are not measured. Goals: 1.8 s a step, and no more memory than planned. Prints a table, then one JSON
line; exit status 0 when all goals are met, 2 without a GPU. ``--tiny`` runs the same code on a small model on
the CPU, counts live bytes (the table in RAM too) instead of asking an allocator, and has no goal of speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig
from torch import Tensor, nn

from oblik.diffusion import live_bytes, modulation
from oblik.diffusion.flow_match import noised, shift_mu, velocity_loss
from oblik.diffusion.memory import RESERVE_BYTES, architecture_of, make_plan
from oblik.diffusion.memory_count import TEXT_TOKENS, Architecture
from oblik.errors import BackendUnavailable, OblikError
from oblik.packs.memory_plan import GIB, Asked, MemoryPlan, Purpose, Stage
from oblik.training.config import ATTENTION_TARGETS, MLP_TARGETS

STEP_GOAL_S = 1.8
WARM_STEPS = 2
TINY = {
    "transformer": {"num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 32,
                    "joint_attention_dim": 64, "axes_dims_rope": [8, 12, 12]},
    "vae": {"base_dim": 16, "num_res_blocks": 1},
}  # fmt: skip
SCHEDULER = {
    "base_image_seq_len": 256, "max_image_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9,
    "shift_terminal": 0.02, "use_dynamic_shifting": True, "time_shift_type": "exponential",
}  # fmt: skip


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    words.add_argument("--vram", type=float, default=16.0, help="cap of the allocator in GiB")
    words.add_argument("--side", type=int, default=768, help="pixels of a picture's side")
    words.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    words.add_argument("--sampling-steps", type=int, default=30)
    asked = words.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured. With --tiny a small model runs on the CPU.")
        return 2
    try:
        return measure(asked)
    except OblikError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status


def measure(asked: argparse.Namespace) -> int:
    """Both halves, the table and the line of JSON."""
    device = torch.device("cpu" if asked.tiny else "cuda")
    if not asked.tiny:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, asked.vram * GIB / total), device)
    figures: dict[str, Any] = {
        "device": "CPU, tiny model" if asked.tiny else torch.cuda.get_device_name(device),
        "side_px": asked.side, "torch": torch.__version__,
    }  # fmt: skip
    goals: dict[str, bool] = {}
    architecture = tiny(known()) if asked.tiny else known()
    halves: tuple[tuple[Purpose, tuple[Stage, ...], Callable[..., float]], ...] = (
        ("train", ("train transformer",), train_s),
        ("generate", ("denoise", "decode"), image_s),
    )
    for purpose, stages, run in halves:
        wish = Asked(
            pack="qwen-image", purpose=purpose, vram_bytes=round(asked.vram * GIB), batch=1,
            width_px=asked.side, height_px=asked.side,
        )  # fmt: skip
        plan = make_plan(architecture, wish)
        if plan.configuration.offload_blocks:
            raise BackendUnavailable("the plan offloads blocks: this is not measured here", hint="--vram 24")
        with peak_bytes(device) as peak:
            seconds = run(plan, architecture, device, asked)
        planned = max(
            each.total - each.rows.get("text encoder", 0) for each in plan.stages if each.stage in stages
        )
        figures[purpose] = {
            "attention": plan.configuration.attention, "mlp": plan.configuration.mlp,
            "peak_gib": round(peak[0] / GIB, 4), "planned_gib": round(planned / GIB, 4),
            "seconds": round(seconds, 3),
        }  # fmt: skip
        allowed = 1.25 * planned if asked.tiny else planned + RESERVE_BYTES
        goals[f"{purpose}_peak_within_plan"] = peak[0] <= allowed
    if not asked.tiny:
        goals["train_step"] = figures["train"]["seconds"] <= STEP_GOAL_S
    print(f"{'':<10}{'attention':>14}{'MLP':>14}{'peak GiB':>10}{'planned':>10}{'seconds':>10}")
    for purpose, _, _ in halves:
        row = figures[purpose]
        print(
            f"{purpose:<10}{row['attention']:>14}{row['mlp']:>14}{row['peak_gib']:>10.3f}"
            f"{row['planned_gib']:>10.3f}{row['seconds']:>10.3f}"
        )
    ok = all(goals.values())
    print(json.dumps({"name": "qwen_16gb", "figures": figures, "goals": goals, "ok": ok}))
    return 0 if ok else 1


def known() -> Architecture:
    """The published architecture in the formats that can be made here."""
    formats = ["diffusers"]
    if find_spec("torchao"):
        formats += ["torchao-int8", "torchao-fp8", *(["torchao-int4"] if find_spec("mslk") else [])]
    if find_spec("bitsandbytes"):
        formats.append("bnb-nf4")
    return replace(architecture_of("qwen-image", None), formats=tuple(formats))


def tiny(published: Architecture) -> Architecture:
    """The same classes, small, in float32."""
    transformer, text, vae = published.configs
    text["text_config"] |= {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "rope_parameters": {
            "mrope_section": [4, 6, 6], "rope_theta": 10000.0, "rope_type": "default", "type": "mrope"},
    }  # fmt: skip
    return Architecture(
        json.dumps(transformer | TINY["transformer"]), json.dumps(text), json.dumps(vae | TINY["vae"]),
        "float32", ("diffusers",),
    )  # fmt: skip


def train_s(plan: MemoryPlan, architecture: Architecture, device: torch.device, asked: Any) -> float:
    """Seconds of a step: one photo, forward, backward, AdamW."""
    model = build(plan, architecture, device, modulation.training_grid(), lora=True)
    model.enable_gradient_checkpointing()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-4)
    side = asked.side // 16
    x0, text = states(model, device, side)
    began = 0.0
    for step in range(WARM_STEPS + asked.steps):
        if step == WARM_STEPS:
            began = clock(device)
        eps = torch.randn_like(x0)
        sigma = modulation.on_grid(torch.rand(1, device=device))
        velocity = forward(model, noised(x0, eps, sigma), text, sigma, side)
        loss = velocity_loss(velocity, eps - x0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    if not math.isfinite(float(loss.detach())):
        raise RuntimeError("the loss is not finite")
    return (clock(device) - began) / int(asked.steps)


@torch.no_grad()
def image_s(plan: MemoryPlan, architecture: Architecture, device: torch.device, asked: Any) -> float:
    """Seconds of one image: every step twice, for guidance, and the VAE's decoder."""
    dtype: torch.dtype = getattr(torch, architecture.dtype)
    side = asked.side // 16
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULER)
    count = asked.sampling_steps
    sigmas = torch.linspace(1.0, 1 / count, count).tolist()
    scheduler.set_timesteps(sigmas=sigmas, mu=shift_mu(scheduler.config, side * side), device=device)
    times = scheduler.timesteps.to(dtype) / 1000
    model = build(plan, architecture, device, times, lora=True)
    vae = random_weights(live_bytes.new_vae(architecture.configs[2], dtype), device)
    x, text = states(model, device, side)
    x, text = x.to(dtype), text.to(dtype)
    empty = torch.zeros_like(text)
    began = 0.0
    for timed in (False, True):  # the first image warms up
        began = clock(device)
        for t, time_ in zip(scheduler.timesteps, times, strict=True):
            shown, blank = (forward(model, x, each, time_[None], side) for each in (text, empty))
            x = scheduler.step(blank + 4.0 * (shown - blank), t, x, return_dict=False)[0]
        latents = x.view(1, side, side, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 16, 1, 2 * side, -1)
        vae.decode(latents)
        scheduler.set_timesteps(sigmas=sigmas, mu=shift_mu(scheduler.config, side * side), device=device)
        if not timed and device.type == "cpu":
            break
    return clock(device) - began


def build(
    plan: MemoryPlan, architecture: Architecture, device: torch.device, times: Tensor, *, lora: bool
) -> Any:
    """The transformer with random weights: baked, with LoRA, each block quantised as soon as it is made."""
    dtype: torch.dtype = getattr(torch, architecture.dtype)
    model = live_bytes.new_transformer(architecture.configs[0], dtype)
    axes = list(model.config.axes_dims_rope)
    skeletons = dict(model.named_modules())

    def source(name: str) -> nn.Module:
        module: nn.Module = random_weights(deepcopy(skeletons[name]), device)
        return module

    modulation.bake(model, times, source=source, device=device)
    if lora:
        model.add_adapter(LoraConfig(r=plan.asked.rank, target_modules=[*ATTENTION_TARGETS, *MLP_TARGETS]))
    model.pos_embed = type(model.pos_embed)(theta=10000, axes_dim=axes, scale_rope=True)
    for block in model.transformer_blocks:
        random_weights(block, device)
        quantise(block, plan)
    for part in (model.img_in, model.txt_in, model.txt_norm, model.norm_out, model.proj_out):
        random_weights(part, device)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


@torch.no_grad()
def random_weights(module: Any, device: torch.device) -> Any:
    """The module off the meta device: normal numbers of a plausible size, norms of one."""
    module.to_empty(device=device)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.5 / math.sqrt(parameter[0].numel()))
        else:
            parameter.fill_(1.0 if parameter.numel() > 1 else 0.0)
    return module


def quantise(block: Any, plan: MemoryPlan) -> None:
    """Replace the weights of a block's linear layers, LoRA excepted, in the planned formats."""
    for name, part in list(block.named_modules()):
        if type(part) is nn.Linear and "lora_" not in name:
            format = plan.configuration.mlp if "_mlp." in name else plan.configuration.attention
            if format == "bnb-nf4":
                block.set_submodule(name, nf4(part))
            elif format != "diffusers":
                torchao_in_place(part, format)


def nf4(linear: nn.Linear) -> nn.Module:
    """bitsandbytes' layer with the same weight; moving it to the GPU quantises it."""
    bitsandbytes = import_module("bitsandbytes")

    made = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=True,
        compute_dtype=linear.weight.dtype,
        quant_type="nf4",
    )
    made.load_state_dict(linear.cpu().state_dict())
    quantised: nn.Module = made.to("cuda").requires_grad_(False)
    return quantised


def torchao_in_place(linear: nn.Linear, format: str) -> None:
    """torchao's weight-only quantisation of one layer."""
    quantization = import_module("torchao.quantization")

    names = {
        "torchao-int8": "Int8WeightOnlyConfig", "torchao-fp8": "Float8WeightOnlyConfig",
        "torchao-int4": "Int4WeightOnlyConfig",
    }  # fmt: skip
    quantization.quantize_(linear, getattr(quantization, names[format])())


def states(model: Any, device: torch.device, side: int) -> tuple[Tensor, Tensor]:
    """Random latents (1, T, C) and text states (1, L, D)."""
    text = torch.randn(1, TEXT_TOKENS, model.config.joint_attention_dim, device=device)
    return torch.randn(1, side * side, model.config.in_channels, device=device), text


def forward(model: Any, x: Tensor, text: Tensor, time_: Tensor, side: int) -> Tensor:
    """The velocity."""
    dtype = model.img_in.weight.dtype
    out: Tensor = model(
        hidden_states=x.to(dtype), encoder_hidden_states=text.to(dtype), timestep=time_.to(dtype),
        img_shapes=[[(1, side, side)]], return_dict=False,
    )[0]  # fmt: skip
    return out


def clock(device: torch.device) -> float:
    """Seconds, after everything queued has run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[list[int]]:
    """The most bytes held inside: the allocator's on a GPU, live storages on a CPU (the table's RAM too)."""
    found = [0]
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found[0] = torch.cuda.max_memory_reserved(device)
    else:
        with live_bytes.LiveBytes() as live:
            yield found
        found[0] = live.peak


if __name__ == "__main__":
    sys.exit(main())
