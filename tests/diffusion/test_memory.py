"""The planner's arithmetic against real allocation on small models, and what it does when memory runs out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from oblik.diffusion import live_bytes, lora, modulation
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.memory import architecture_of, configurations, make_plan, with_replanning
from oblik.diffusion.memory_count import Architecture, Counted, count
from oblik.diffusion.weight_bytes import FORMATS
from oblik.errors import BackendUnavailable, NotFound, OutOfMemory
from oblik.generation.backends.beside import Shown, beside
from oblik.miniature.architecture import new_transformer
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB, SMALLER, Asked, Beside, MemoryPlan, replan
from oblik.packs.store import open_pack
from oblik.paths import Home
from oblik.training.config import ATTENTION_TARGETS, MLP_TARGETS, TrainConfig

PACK = "qwen-image-16gb"


@pytest.fixture(scope="module")
def pack() -> OpenPack:
    return open_pack("miniature", Home(Path("nowhere")))


@pytest.fixture(scope="module")
def architecture(pack: OpenPack) -> Architecture:
    return architecture_of("miniature", pack)


@pytest.fixture(scope="module")
def counted(architecture: Architecture) -> Counted:
    return count(
        architecture,
        Asked(pack="miniature", purpose="train", vram_bytes=1, width_px=128, height_px=128, text_layers=2),
    )


@pytest.fixture(scope="module")
def opened(pack: OpenPack) -> Any:
    return open_pipeline(pack, None, dtype=torch.float32, device=torch.device("cpu"))


@lru_cache
def real(vram_gib: float, purpose: str = "generate", **asked: Any) -> MemoryPlan:
    """A plan for the published 20B."""
    return make_plan(
        architecture_of(PACK, None),
        Asked(pack=PACK, purpose=purpose, vram_bytes=round(vram_gib * GIB), **asked),
    )


def held(model: Any) -> int:
    """Bytes of a real model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def test_weights_are_those_of_the_real_models(
    architecture: Architecture, counted: Counted, opened: Any
) -> None:
    asked = counted.asked
    plain, baked = (
        next(c for c in configurations(architecture, asked) if c.baked_modulation == wanted)
        for wanted in (False, True)
    )
    assert counted.transformer_weights(plain) == held(opened.transformer)
    assert counted.vae_bytes == held(opened.vae)
    modulation.bake(opened.transformer, modulation.training_grid())
    assert counted.transformer_weights(baked) == held(opened.transformer)
    table = opened.transformer.time_text_embed.table_TR
    assert counted.table_bytes == table.numel() * table.element_size()
    block = opened.transformer.transformer_blocks[0]
    assert counted.block_bytes(baked) == held(block)

    prompt = "photo of a woman in a park"
    before, _ = opened.encode_prompt(prompt)
    live_bytes.text_only(opened.text_encoder)
    after, _ = opened.encode_prompt(prompt)
    assert torch.equal(before, after)
    assert counted.text_weights(plain) == held(opened.text_encoder)


def test_lora_gradients_and_optimiser_are_those_of_a_real_step(counted: Counted) -> None:
    transformer = new_transformer(0)
    config = TrainConfig(rank=16, targets=(*ATTENTION_TARGETS, *MLP_TARGETS))
    parameters = lora.attach(transformer, config)
    optimiser = torch.optim.AdamW(parameters)
    velocity(transformer).square().mean().backward()
    optimiser.step()
    state = [value for each in optimiser.state.values() for value in each.values() if value.dim()]
    stage = counted.plan(next(configurations(architecture_of(PACK, None), counted.asked)), GIB).stages[-1]
    assert stage.stage == "train transformer"
    assert stage.rows["LoRA"] == sum(p.nbytes for p in parameters)
    assert stage.rows["gradients"] == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert stage.rows["optimiser"] == sum(value.nbytes for value in state)


def velocity(transformer: Any, side: int = 16, text: int = 64) -> Tensor:
    """One forward on random tokens."""
    out: Tensor = transformer(
        hidden_states=torch.randn(1, side * side, 64),
        encoder_hidden_states=torch.randn(1, text, 128),
        timestep=torch.tensor([0.5]),
        img_shapes=[[(1, side, side)]],
        return_dict=False,
    )[0]
    return out


def saved_bytes(run: Callable[[], Tensor], known: list[Tensor]) -> int:
    """Bytes that autograd really keeps of a forward, each storage once, weights not counted."""
    weights = {each.untyped_storage().data_ptr() for each in known}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run()
    total = sum(int(storage.nbytes()) for storage in kept.values())
    assert out.requires_grad
    return total


def test_traced_activations_against_what_autograd_saves() -> None:
    """The peak of a checkpointed step lies between what one block saves and twice that."""
    config = {**new_transformer(0).config, "num_layers": 1}
    targets = list(ATTENTION_TARGETS)
    transformer = type(new_transformer(0)).from_config(config)
    lora.attach(transformer, TrainConfig(rank=16))
    saved = saved_bytes(lambda: velocity(transformer), list(transformer.parameters()))
    config.pop("_use_default_values", None)
    traced = live_bytes.train_peak(config, torch.float32, (16, 16), 64, 16, targets)
    assert saved < traced < 2 * saved
    with torch.no_grad(), live_bytes.LiveBytes(transformer.parameters()) as live:
        velocity(transformer)
    forward = live_bytes.denoise_peak(config, torch.float32, (16, 16), 64)
    assert forward == pytest.approx(live.peak, rel=0.2)


def test_more_blocks_are_a_straight_line() -> None:
    config = {k: v for k, v in new_transformer(0).config.items() if not k.startswith("_")}
    peaks = [
        live_bytes.train_peak({**config, "num_layers": n}, torch.bfloat16, (8, 8), 16, 4, ["to_q"])
        for n in (2, 3)
    ]
    model = live_bytes.new_transformer(config, torch.bfloat16, 6)
    grads = [p.grad for p in live_bytes.add_lora(model, 4, ["to_q"]) if p.grad is not None]
    model.enable_gradient_checkpointing()
    with live_bytes.LiveBytes([*model.parameters(), *grads]) as live, live_bytes.fused_attention():
        out = live_bytes._velocity(model, torch.bfloat16, (8, 8), 16)
        torch.autograd.backward(out.float().square().mean())
    assert peaks[0] + 4 * (peaks[1] - peaks[0]) == pytest.approx(live.peak, rel=0.01)


def test_eyes_are_counted_where_the_encoder_keeps_them(pack: OpenPack, architecture: Architecture) -> None:
    folder = pack.folder / "text_encoder"
    encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    live_bytes.text_only(encoder, eyes=True)
    seeing = replace(architecture, eyes=True)
    asked = Asked(pack="miniature", purpose="generate", vram_bytes=1, width_px=128, height_px=128)
    plain = next(configurations(architecture, asked))
    assert count(seeing, asked).text_weights(plain) == held(encoder)
    assert encoder.model.visual is not None
    assert held(encoder) - count(architecture, asked).text_weights(plain) == held(encoder.model.visual)


def test_pictures_beside_the_noise_are_as_long_as_they_are() -> None:
    """Traced against a real call that is shown a frame and two heads."""
    transformer = type(new_transformer(0)).from_config({**new_transformer(0).config, "num_layers": 1})
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    sizes = [(16, 16), (8, 8), (8, 8)]
    shown = [Shown(torch.randn(1, rows * columns, 64), rows, columns) for rows, columns in sizes]
    known = [*transformer.parameters(), *(picture.latents for picture in shown)]
    with torch.no_grad(), live_bytes.LiveBytes(known) as live, beside(transformer, shown):
        velocity(transformer)
    counted = live_bytes.denoise_peak(config, torch.float32, (16, 16), 64, sizes)
    assert counted == pytest.approx(live.peak, rel=0.2)
    assert counted > 1.5 * live_bytes.denoise_peak(config, torch.float32, (16, 16), 64)


def test_an_edit_counts_what_it_adds(architecture: Architecture) -> None:
    frame, head, tokens = (128, 128), (64, 64), 8 * 8 + 2 * 4 * 4
    asked = Asked(pack="miniature", purpose="generate", vram_bytes=1, width_px=128, height_px=128)
    choice = next(configurations(architecture, asked)).model_copy(update={"text_encoder_place": "freed"})

    def rows(**beside: Any) -> tuple[dict[str, dict[str, int]], int]:
        wanted = asked.model_copy(update={"beside": Beside(**beside)})
        found = count(architecture, wanted).plan(choice, GIB)
        return {stage.stage: stage.rows for stage in found.stages}, found.ram_bytes

    plain, plain_ram = rows()
    alone, _ = rows(alone=True)
    shown, _ = rows(alone=True, shown_px=(frame, head, head), seen=3, lora_bytes=7 << 20)
    assert shown["denoise"]["LoRA"] - alone["denoise"]["LoRA"] == 7 << 20
    assert shown["denoise"]["caches"] - alone["denoise"]["caches"] > tokens * 64 * 4
    assert shown["denoise"]["activations"] > alone["denoise"]["activations"]
    assert shown["encode text"]["activations"] > alone["encode text"]["activations"], "pictures are words too"
    assert alone["denoise"]["caches"] < plain["denoise"]["caches"], "one picture at a time, not four"
    _, first_ram = rows(first_steps=50)
    assert first_ram - plain_ram == 50 * choice.batch * 8 * 8 * 64 * 4
    published = architecture_of(PACK, None).configs[1]
    assert 2**24 < live_bytes.eyes_peak(published, torch.bfloat16, 3) < 2**27


def test_formats_have_the_published_sizes() -> None:
    numbers = 20_430_401_088  # parameters of Qwen-Image
    files_gb = {"gguf-q8_0": 21.8, "gguf-q6_k": 16.8, "fp8": 20.4}
    for name, size_gb in files_gb.items():
        assert numbers * FORMATS[name].each / 1e9 == pytest.approx(size_gb, rel=0.01)
    rows = {stage.stage: stage.rows for stage in real(16).stages}
    assert real(16).configuration.attention == "gguf-q6_k"
    assert rows["denoise"]["transformer"] / 1e9 == pytest.approx(11.2, rel=0.01)


def test_more_memory_gives_up_less_and_less_memory_offloads_last() -> None:
    plans = {vram: real(vram) for vram in (8, 12, 16, 24, 48)}
    assert all(plan.fits for plan in plans.values())
    assert [plan.configuration.offload_blocks > 0 for plan in plans.values()] == [True] + [False] * 4
    assert plans[12].configuration.attention == "gguf-q4_k"
    assert not plans[48].configuration.baked_modulation
    assert plans[48].configuration.text_encoder_place == "stays"
    assert plans[48].gave_up == "Gave up precision of the transformer (gguf-q6_k)."
    with pytest.raises(OutOfMemory, match="in any configuration"):
        real(2)


def test_offload_brings_every_stage_under_the_limit_and_into_ram() -> None:
    plan = real(8)
    assert plan.peak_bytes <= 7 * GIB
    assert plan.ram_bytes > plan.configuration.offload_blocks * 100_000_000
    assert "travel from RAM" in plan.gave_up


def test_each_next_plan_needs_less_where_memory_ran_out_until_none_is_left() -> None:
    plan = real(16)
    for _ in range(3):
        smaller = replan(plan, "denoise")
        assert smaller.stage_bytes("denoise") < SMALLER * plan.stage_bytes("denoise")
        plan = smaller
    last = plan.model_copy(update={"smaller": ()})
    with pytest.raises(OutOfMemory, match="no smaller plan is left") as spent:
        replan(last, "denoise")
    assert "--size" in spent.value.hint


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, OutOfMemory])
def test_a_run_that_is_out_of_memory_goes_on_with_the_next_plan(error: type[Exception]) -> None:
    first = real(16)
    tried: list[MemoryPlan] = []
    notes: list[str] = []
    ghosts: list[weakref.ref[Tensor]] = []

    def run(plan: MemoryPlan, enter: Callable[[Any], None]) -> str:
        assert all(ghost() is None for ghost in ghosts), "the failed run still holds its tensors"
        tried.append(plan)
        enter("encode text")
        enter("denoise")
        big = torch.zeros(1000)
        ghosts.append(weakref.ref(big))
        if len(tried) < 3:
            raise error("no memory")
        return "drawn"

    assert with_replanning(run, first, notes.append) == "drawn"
    assert tried[0] == first
    assert tried[1] == replan(first, "denoise")
    assert tried[2].stage_bytes("denoise") < tried[1].stage_bytes("denoise")
    assert len(notes) == 2
    assert notes[0].startswith("out of memory in 'denoise'")


def test_other_errors_pass_and_a_spent_ladder_is_an_error() -> None:
    def broken(plan: MemoryPlan, enter: Callable[[Any], None]) -> None:
        raise ValueError("not memory")

    def full(plan: MemoryPlan, enter: Callable[[Any], None]) -> None:
        raise OutOfMemory("full")

    with pytest.raises(ValueError, match="not memory"):
        with_replanning(broken, real(16), print)
    with pytest.raises(OutOfMemory, match="no smaller plan"):
        with_replanning(full, real(16), lambda _: None)


def test_what_cannot_be_planned_says_so(pack: OpenPack) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        architecture_of("nowhere", None)
    other = pack.model_copy(update={"manifest": pack.manifest.model_copy(update={"family": "other"})})
    with pytest.raises(BackendUnavailable, match="not planned"):
        architecture_of("other", other)
