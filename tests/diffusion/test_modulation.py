"""Baked modulation equals the modulation it replaces, to the last bit."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from oblik.diffusion import modulation
from oblik.diffusion.load import open_pipeline
from oblik.errors import InvalidInput, LoraBroken
from oblik.miniature.architecture import new_transformer
from oblik.packs.store import open_pack
from oblik.paths import Home

SIDE_PX, STEPS = 128, 4


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def opened(request: pytest.FixtureRequest) -> Any:
    pack = open_pack("miniature", Home(Path("nowhere")))
    pipeline = open_pipeline(pack, None, dtype=request.param, device=torch.device("cpu"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_transformer(seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """A tiny transformer none of whose weights is zero."""
    transformer = new_transformer(seed)
    if config:
        transformer = type(transformer).from_config(transformer.config, **config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return transformer.requires_grad_(False).to(dtype)


def draw(pipeline: Any, *, pictures: int = 1, steps: int = STEPS, side_px: int = SIDE_PX) -> Tensor:
    """Latents after a whole loop with true classifier-free guidance, by the plain pipeline."""
    latents: Tensor = pipeline(
        prompt="photo of a woman in a park", negative_prompt=" ", true_cfg_scale=3.0,
        num_inference_steps=steps, width=side_px, height=side_px, num_images_per_prompt=pictures,
        generator=torch.Generator().manual_seed(1), output_type="latent",
    ).images  # fmt: skip
    return latents


def call(transformer: Any, times: list[float], side: int = 4) -> Tensor:
    """One forward with a time for each row."""
    generator = torch.Generator().manual_seed(7)
    rows, dtype = len(times), transformer.dtype
    out: Tensor = transformer(
        hidden_states=torch.randn(1, side * side, 64, generator=generator).to(dtype).expand(rows, -1, -1),
        encoder_hidden_states=torch.randn(1, 5, 128, generator=generator).to(dtype).expand(rows, -1, -1),
        timestep=torch.tensor(times).to(dtype),
        img_shapes=[[(1, side, side)]] * rows,
        return_dict=False,
    )[0]
    return out


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("trained", [True, False], ids=["miniature", "random"])
def test_a_whole_guided_loop_is_bit_equal(opened: Any, trained: bool, pictures: int) -> None:
    original = opened.transformer
    used = original if trained else random_transformer(3, original.dtype)
    try:
        opened.transformer = used
        plain = draw(opened, pictures=pictures)
        opened.transformer = deepcopy(used)
        times = modulation.schedule_times(opened, STEPS, (SIDE_PX, SIDE_PX))
        modulation.bake(opened.transformer, times, rows=pictures)
        table = draw(opened, pictures=pictures)
    finally:
        opened.transformer = original
    assert plain.std() > 0.1
    assert float((plain - table).abs().max()) == 0


def test_the_weights_are_dropped_and_the_table_has_the_size_of_the_formula() -> None:
    transformer = random_transformer()
    modulated = sum(
        p.numel() for name, p in transformer.named_parameters() if "_mod." in name or "time_text" in name
    )
    before = transformer.num_parameters()
    weight = weakref.ref(transformer.transformer_blocks[0].img_mod[1].weight)
    modulation.bake(transformer, modulation.training_grid()[:30])
    gc.collect()
    assert weight() is None
    assert transformer.num_parameters() == before - modulated
    assert not any("_mod" in name or "time_text" in name for name in transformer.state_dict())
    assert transformer.time_text_embed.table_TR.numel() == 30 * (12 * 6 + 1) * 192


def test_steps_and_size_that_change_are_baked_again_or_an_error(opened: Any) -> None:
    if opened.transformer.dtype == torch.bfloat16:
        pytest.skip("in bfloat16 some of the other schedule's times are the same")
    original = opened.transformer
    plain = {(steps, side): draw(opened, steps=steps, side_px=side) for steps, side in ((4, 64), (3, 128))}
    try:
        opened.transformer = deepcopy(original)
        source = modulation.parked(opened.transformer)
        times = modulation.schedule_times(opened, STEPS, (SIDE_PX, SIDE_PX))
        modulation.bake(opened.transformer, times, source=source)
        for (steps, side), expected in plain.items():
            with pytest.raises(InvalidInput, match="is not one of 4 baked"):
                draw(opened, steps=steps, side_px=side)
            times = modulation.schedule_times(opened, steps, (side, side))
            assert modulation.ensure(opened.transformer, times)
            assert not modulation.ensure(opened.transformer, times)
            assert torch.equal(draw(opened, steps=steps, side_px=side), expected)
    finally:
        opened.transformer = original


def test_dropped_weights_cannot_be_baked_again() -> None:
    transformer = random_transformer()
    modulation.bake(transformer, torch.tensor([0.5]))
    with pytest.raises(InvalidInput, match="weights were dropped"):
        modulation.bake(transformer, torch.tensor([0.25]))


def test_every_bfloat16_serves_any_schedule(opened: Any) -> None:
    if opened.transformer.dtype == torch.float32:
        pytest.skip("of bfloat16 only")
    known = modulation.every_bfloat16()
    for steps, side in ((4, 64), (30, 768), (50, 1328)):
        assert torch.isin(modulation.schedule_times(opened, steps, (side, side)), known).all()
    assert torch.isin(modulation.training_grid().bfloat16(), modulation.every_bfloat16(0.0005)).all()
    assert len(known) == 733


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_model_modulates_its_sources_at_time_zero(dtype: torch.dtype) -> None:
    transformer = random_transformer(1, dtype, zero_cond_t=True)
    plain = call(transformer, [0.5])
    modulation.bake(transformer, torch.tensor([0.5]))
    assert torch.equal(plain, call(transformer, [0.5]))


def test_a_model_that_does_not_say_what_it_computes_in_is_told() -> None:
    """GGUF files keep some parameters in float32 and compute in bfloat16."""
    transformer = random_transformer(1, torch.bfloat16)
    plain = call(transformer, [0.3])
    transformer.register_parameter("stray", torch.nn.Parameter(torch.zeros(1), requires_grad=False))
    assert transformer.dtype == torch.float32
    modulation.bake(transformer, torch.tensor([0.3]), dtype=torch.bfloat16)
    del transformer.stray
    assert torch.equal(plain, call(transformer, [0.3]))


@pytest.mark.parametrize("config", [{"use_additional_t_cond": True}, {"guidance_embeds": True}])
def test_modulation_by_more_than_the_time_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="more than the time"):
        modulation.bake(random_transformer(**config), torch.tensor([0.5]))


def test_training_is_bit_equal_with_checkpoints_and_another_forward_between() -> None:
    transformer = random_transformer(2)
    sigma = modulation.on_grid(torch.tensor([0.87654321]))
    assert float(sigma) == float(torch.tensor(877) / 1000)
    plain, table = deepcopy(transformer), transformer
    modulation.bake(table, modulation.training_grid())
    gradients = []
    for model in (plain, table):
        model.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        model.enable_gradient_checkpointing()
        torch.manual_seed(5)
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            torch.nn.init.normal_(parameter)
        out = call(model, [float(sigma)])
        with torch.no_grad():
            call(model, [0.25])
        out.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_rows_of_one_batch_may_have_their_own_times() -> None:
    transformer = random_transformer(4)
    plain = torch.cat([call(transformer, [time]) for time in (0.125, 0.75)])
    modulation.bake(transformer, torch.tensor([0.75, 0.125, 0.5]))
    assert torch.allclose(call(transformer, [0.125, 0.75]), plain, atol=1e-5)


def lora_file(path: Path, transformer: Any, module: str) -> Path:
    """A LoRA of rank 2 on one module of every block."""
    tensors = {}
    for index, block in enumerate(transformer.transformer_blocks):
        linear = block.get_submodule(module)
        name = f"transformer.transformer_blocks.{index}.{module}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, linear.in_features)
        tensors[f"{name}.lora_B.weight"] = torch.randn(linear.out_features, 2)
    save_file(tensors, path)
    return path


def test_lora_on_attention_is_loaded_as_before_and_on_modulation_refused(opened: Any, tmp_path: Path) -> None:
    original = opened.transformer
    attention = lora_file(tmp_path / "attention.safetensors", original, "attn.to_q")
    modulating = lora_file(tmp_path / "modulation.safetensors", original, "img_mod.1")
    times = modulation.schedule_times(opened, STEPS, (SIDE_PX, SIDE_PX))
    drawn = {}
    try:
        for name, loaded, wanted in (
            ("unbaked", attention, False), ("after", attention, True), ("before", attention, None),
            ("modulated", modulating, False), ("modulated before", modulating, None),
        ):  # fmt: skip
            opened.transformer = deepcopy(original)
            if wanted:
                modulation.bake(opened.transformer, times)
            opened.load_lora_weights(loaded.parent, weight_name=loaded.name, local_files_only=True)
            if wanted is None:
                modulation.bake(opened.transformer, times)
            drawn[name] = draw(opened)
        opened.transformer = deepcopy(original)
        modulation.bake(opened.transformer, times)
        with pytest.raises(ValueError, match="apply this LoRA before baking"):
            opened.load_lora_weights(modulating.parent, weight_name=modulating.name, local_files_only=True)
        with pytest.raises(ValueError, match="apply this LoRA before baking"):
            deepcopy(opened.transformer).add_adapter(LoraConfig(r=2, target_modules=["to_q", "txt_mod.1"]))
        modulation.refuse_lora(opened.transformer, ["transformer_blocks.0.attn.to_q"])
        with pytest.raises(LoraBroken, match=r"baked into a table: transformer_blocks\.0\.img_mod\.1"):
            modulation.refuse_lora(opened.transformer, ["transformer_blocks.0.img_mod.1"])
        plain = draw(opened)
    finally:
        opened.transformer = original
    assert torch.equal(drawn["unbaked"], drawn["after"])
    assert torch.equal(drawn["unbaked"], drawn["before"])
    assert torch.equal(drawn["modulated"], drawn["modulated before"])
    assert not torch.equal(plain, drawn["modulated"])
    assert not torch.equal(plain, drawn["after"])
