"""Packed transformers as a memory plan opens them: on tiny files, computed on a CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tests.diffusion import tiny_qwen
from tests.diffusion.test_load_gguf import FILE, read, write
from tests.diffusion.tiny_qwen import CPU, velocity

from oblik.diffusion import lora, modulation
from oblik.diffusion.families.family import family_of
from oblik.diffusion.load import RAM, loading, settle
from oblik.diffusion.memory import architecture_of
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.memory_plan import Configuration
from oblik.training.config import TrainConfig

CARD = torch.device("cuda")


def choice(attention: str, mlp: str, text: str = "diffusers", **changed: Any) -> Configuration:
    named = {"attention": attention, "mlp": mlp, "text_encoder": text}
    rest = {"baked_modulation": True, "text_encoder_place": "freed", "batch": 1}
    return Configuration.model_validate({**rest, **named, **changed})


def test_a_baked_gguf_says_what_it_said_before_with_a_lora_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "Q6_K")
    plain, baked = (read(tmp_path, torch.bfloat16) for _ in range(2))
    encoder = SimpleNamespace(model=SimpleNamespace(visual=1), lm_head=1)
    vae = SimpleNamespace(enable_slicing=lambda: None, device=CPU)
    family = family_of("qwen_image")(
        SimpleNamespace(transformer=baked, text_encoder=encoder, vae=vae, vae_scale_factor=8)
    )
    times = modulation.training_grid()[490:510]
    settle(family, choice("gguf-q6_k", "gguf-q6_k"), times, rows=1, dtype=torch.bfloat16, device=CPU)
    assert (encoder.model.visual, encoder.get_output_embeddings()) == (None, None)
    for model in (plain, baked):
        lora.attach(model, TrainConfig(rank=2))
        assert model.dtype == torch.bfloat16
    assert torch.equal(velocity(plain, torch.bfloat16), velocity(baked, torch.bfloat16))


def test_what_will_be_baked_waits_in_ram_unless_only_the_card_packs_it() -> None:
    place, packing = loading(choice("torchao-int8", "torchao-int8", "bnb-nf4"), CARD)
    assert (place, packing["how"].modulation, packing["how"].mlp) == (RAM, "none", "torchao-int8")
    assert (packing["text_how"], packing["text_on"]) == ("bnb-nf4", CARD)
    place, packing = loading(choice("bnb-nf4", "bnb-nf4"), CARD)
    assert (place, packing["how"].modulation, packing["text_on"]) == (CARD, "bnb-nf4", RAM)
    assert loading(choice("gguf-q4_k", "gguf-q4_k"), CARD) == (RAM, {})
    assert loading(choice("diffusers", "diffusers", baked_modulation=False), CPU) == (CPU, {})


def test_the_planner_knows_which_gguf_a_pulled_pack_has(tmp_path: Path) -> None:
    component = tiny_qwen.component("gguf", FILE.replace("tiny", "tiny-Q4_K_M"))
    manifest = Pack(
        name="p", version="1", family="qwen_image", native_size_px=768, side_multiple_px=16,
        components={"transformer": component},
    )  # fmt: skip
    assert architecture_of("p", OpenPack(manifest=manifest, folder=tmp_path)).formats == ("gguf-q4_k",)
