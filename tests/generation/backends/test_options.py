"""Ways to run the network: the same pictures, or a difference that is asked for, and reasons for a no."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel, UNet2DConditionModel
from PIL import Image
from tests.generation.backends.test_diffusers_engine import PLAN, pack, pixels, run

from oblik.diffusion.families.family import Text
from oblik.diffusion.real_rope import use_real_rope
from oblik.errors import BackendError, BackendUnavailable
from oblik.generation.backends import tuning
from oblik.generation.backends.diffusers_engine import DiffusersEngine, _denoise
from oblik.generation.backends.passes import at_once, stills
from oblik.generation.plan import Plan
from oblik.generation.record import Record
from oblik.packs.manifest import OpenPack

__all__ = ["pack"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def engine() -> DiffusersEngine:
    return DiffusersEngine("cpu")


@pytest.fixture(scope="module")
def plain(pack: OpenPack) -> QwenImagePipeline:
    """What the engine is compared with: diffusers' own pipeline, untouched."""
    pipeline = QwenImagePipeline.from_pretrained(pack.folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def bytes_of(record: Record) -> list[str]:
    return [picture.sha256 for picture in record.pictures]


def drawn(pipeline: QwenImagePipeline, negative: Text, **how: Any) -> torch.Tensor:
    """Latents of two pictures after three steps."""
    states, _ = pipeline.encode_prompt("photo of an old man, smiling, in a park")
    call = {
        "prompt_embeds": states, "prompt_embeds_mask": torch.ones(states.shape[:2], dtype=torch.long),
        "negative_prompt_embeds": negative.states,
        "negative_prompt_embeds_mask": torch.ones(negative.states.shape[:2], dtype=torch.long),
    }  # fmt: skip
    found: torch.Tensor = pipeline(
        **call, num_images_per_prompt=2, true_cfg_scale=3.0, num_inference_steps=3, width=96, height=128,
        generator=torch.Generator().manual_seed(2), output_type="latent", **how,
    ).images  # fmt: skip
    return found


def test_both_passes_at_once_say_what_two_calls_say(plain: QwenImagePipeline) -> None:
    """Prompts of different lengths: one call pads and masks; two threads compute the same numbers."""
    negative = Text(*plain.encode_prompt(" "))
    with torch.no_grad():
        apart = drawn(plain, negative)
        calls: list[int] = []
        hook = plain.transformer.img_in.register_forward_pre_hook(lambda _m, x: calls.append(len(x[0])))
        with at_once(plain.transformer, negative, "one call"):
            together = drawn(plain, negative)
        assert calls == [4, 4, 4]
        hook.remove()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        with at_once(plain.transformer, negative, "two calls"):
            alone = drawn(plain, negative)
        with at_once(plain.transformer, negative, "two threads"):
            threads = drawn(plain, negative)
        torch.set_num_threads(before)
    assert (together - apart).abs().max() < 1e-4 * apart.abs().max()
    assert torch.equal(threads, alone)
    assert "forward" not in vars(plain.transformer)


def test_a_controlnet_s_two_passes_stay_two(plain: QwenImagePipeline) -> None:
    negative = Text(*plain.encode_prompt(" "))
    rows: list[int] = []

    def forward(**call: Any) -> tuple[torch.Tensor]:
        rows.append(len(call["hidden_states"]))
        return (call["hidden_states"],)

    network = SimpleNamespace(forward=forward)
    with at_once(network, negative, "one call"):
        for _ in range(2):
            network.forward(hidden_states=torch.zeros(3, 1, 1), controlnet_block_samples=[])
    assert rows == [3, 3]
    assert network.forward is forward


def test_a_still_is_what_the_library_decodes(plain: QwenImagePipeline) -> None:
    latents = torch.randn(3, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = plain.vae.decode(latents, return_dict=False)[0]
        with stills(plain.vae, 2):
            ours = plain.vae.decode(latents, return_dict=False)[0]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4


def test_the_engine_draws_what_the_plain_pipeline_draws(
    engine: DiffusersEngine, plain: QwenImagePipeline, pack: OpenPack, tmp_path: Path
) -> None:
    run(engine, pack, tmp_path, seeds=(3, 4), steps=4)
    assert engine._open is not None
    noise = engine._open[1].noise((3, 4), (128, 128))
    theirs = plain(
        "photo of a woman, in a park", negative_prompt=" ", true_cfg_scale=3.0, num_images_per_prompt=2,
        num_inference_steps=4, width=128, height=128, latents=noise, output_type="np",
    ).images  # fmt: skip
    for image, name in zip(theirs, ("01-seed3.png", "02-seed4.png"), strict=True):
        assert np.abs(np.round(image * 255) - pixels(tmp_path, name)).max() <= 1


def test_euler_ancestral_is_another_picture_and_the_same_one_for_a_seed(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    plan: dict[str, Any] = {"sampler": "euler_ancestral", "steps": 4}
    euler = run(engine, pack, tmp_path / "euler", steps=4)
    first, again = (run(engine, pack, tmp_path / name, **plan) for name in ("a", "b"))
    assert bytes_of(first) == bytes_of(again)
    assert not set(bytes_of(first)) & set(bytes_of(euler))
    run(engine, pack, tmp_path / "alone", seeds=(4,), **plan)
    apart = pixels(tmp_path / "a", "02-seed4.png") - pixels(tmp_path / "alone", "01-seed4.png")
    assert np.abs(apart).max() <= 1
    assert bytes_of(run(engine, pack, tmp_path / "back", steps=4)) == bytes_of(euler)


def test_a_cache_skips_blocks_and_leaves_no_trace(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    plain = run(engine, pack, tmp_path / "plain", steps=6)
    assert engine._open is not None
    last = engine._open[1].network.transformer_blocks[-1].img_mlp
    calls: list[int] = []
    hook = last.register_forward_pre_hook(lambda *_: calls.append(1))
    cached: dict[str, Any] = {"steps": 6, "cache_threshold": 0.9}
    first, again = (run(engine, pack, tmp_path / name, **cached) for name in ("a", "b"))
    hook.remove()
    assert len(calls) < 2 * 2 * 6
    assert bytes_of(first) == bytes_of(again)
    assert bytes_of(first) != bytes_of(plain)
    assert bytes_of(run(engine, pack, tmp_path / "off", steps=6)) == bytes_of(plain)


def test_text_is_encoded_once_for_each_prompt(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    run(engine, pack, tmp_path / "a")
    assert engine._open is not None
    calls: list[int] = []
    encoder = engine._open[1].pipeline.text_encoder
    hook = encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    run(engine, pack, tmp_path / "b", prompt="photo of a man")
    run(engine, pack, tmp_path / "c")
    hook.remove()
    assert len(calls) == 1


def test_a_picture_that_was_left_half_denoised_is_thrown_away(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    """The pipeline itself returns it without a word."""
    run(engine, pack, tmp_path / "a")
    assert engine._open is not None
    family = engine._open[1]

    def interrupt(*_: Any) -> None:
        family.pipeline._interrupt = True

    hook = family.network.register_forward_pre_hook(interrupt)
    with pytest.raises(BackendError, match="1 of 2 steps"):
        run(engine, pack, tmp_path / "b")
    hook.remove()
    assert not (tmp_path / "b" / "record.json").exists()


def test_before_every_batch_there_is_a_rest(pack: OpenPack, tmp_path: Path) -> None:
    rests: list[int] = []
    engine = DiffusersEngine("cpu", rest=lambda _progress: rests.append(len(list(tmp_path.rglob("*seed*")))))
    run(engine, pack, tmp_path / "a", batch=2)
    run(engine, pack, tmp_path / "b", seeds=(3,))
    assert rests == [0, 2, 3], "of one run and of the next; whether it is due, the guard knows"


@pytest.mark.parametrize("name", ["flash", "xformers", "sage"])
def test_an_attention_that_is_not_here_is_refused_with_the_reason(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BackendUnavailable, match=rf"'{name}' (is not available: .*package|needs a CUDA)"):
        run(engine, pack, tmp_path / name, attention=name)
    run(engine, pack, tmp_path / "native", seeds=(3,))
    assert Image.open(tmp_path / "native" / "01-seed3.png").size == (128, 128)


def test_what_a_network_cannot_do_is_said() -> None:
    other = torch.nn.Linear(1, 1)
    with pytest.raises(BackendUnavailable, match="Linear has no first-block cache"):
        tuning._use_cache(other, 0.1)
    with pytest.raises(BackendUnavailable, match="cannot be compiled"):
        tuning.compile_blocks(other)
    assert "BasicTransformerBlock" in UNet2DConditionModel._repeated_blocks


@torch.no_grad()
def test_compiled_blocks_say_the_same() -> None:
    """Traced and run eagerly: what the tracer makes of the blocks, without waiting for a compiler."""
    network = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=12, axes_dims_rope=(2, 2, 4),
    ).eval()  # fmt: skip
    use_real_rope(network)
    call = {
        "hidden_states": torch.randn(2, 6, 16), "timestep": torch.full((2,), 0.5),
        "encoder_hidden_states": torch.randn(2, 3, 12), "img_shapes": [[(1, 2, 3)]], "return_dict": False,
    }  # fmt: skip
    plain = network(**call)[0]
    tuning.compile_blocks(network, backend="eager")
    assert all(block._compiled_call_impl for block in network.transformer_blocks)
    assert torch.allclose(network(**call)[0], plain, atol=1e-5)


@pytest.mark.parametrize(("attention", "rows"), [("native", [4, 4]), ("flash", [2] * 4), ("sage", [2] * 4)])
def test_an_attention_without_a_mask_gets_no_padded_batch(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path, attention: str, rows: list[int]
) -> None:
    """Prompts of different lengths in one call would be padded; of one length they need no mask."""
    run(engine, pack, tmp_path, seeds=(3,))
    assert engine._open is not None
    family = engine._open[1]
    plan = PLAN.model_copy(update={"attention": attention})
    calls: list[int] = []
    hook = family.network.img_in.register_forward_pre_hook(lambda _module, given: calls.append(len(given[0])))
    own, other = (family.text([prompt], torch.device("cpu")) for prompt in (plan.prompt, "a man"))
    for negative, expected in ((other, rows), (own, [4, 4])):
        calls.clear()
        _denoise(family, plan, (3, 4), family.words(own, negative), lambda *told: told[-1], "one call")
        assert calls == expected
    hook.remove()


class Blackened(DiffusersEngine):
    """As sage with Qwen-Image: it runs, and every picture is black."""

    def _family(self, plan: Plan, *asked: Any) -> Any:
        return super()._family(plan.model_copy(update={"attention": "native"}), *asked)

    def _chunk(self, *asked: Any) -> Any:
        return np.zeros_like(super()._chunk(*asked))


def test_black_pictures_of_sage_get_the_hint_to_go_without(pack: OpenPack, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"seeds 3, 4, 5 thrown away: it is black$") as refused:
        run(Blackened("cpu"), pack, tmp_path, attention="sage")
    assert "'sage'" in refused.value.hint
    assert refused.value.hint.endswith("--attention native")
    assert not list(tmp_path.rglob("*.png"))
