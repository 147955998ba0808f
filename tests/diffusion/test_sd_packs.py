"""A Stable Diffusion pack end to end: opened, trained, planned, drawn, and read by plain diffusers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from tests.diffusion.sd_packs import CPU, as_checkpoint, write_pack

from oblik.diffusion.families.family import Family, family_of
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.lora import ADAPTER, lora_layers
from oblik.errors import JobCancelled, LoraBroken
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB
from oblik.progress import SilentProgress
from oblik.training.artifact import TEXT_ENCODER, TOKEN, WEIGHTS, read_artifact
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

Ask = Callable[..., TrainRequest]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PROMPT, NEGATIVE = "photo of <oblik_s> person", "a park"


@dataclass(frozen=True)
class Trained:
    pack: OpenPack
    request: TrainRequest
    artifact: Path

    @property
    def is_xl(self) -> bool:
        return self.pack.manifest.name == "tiny-xl"


@pytest.fixture(scope="module", params=["tiny-sd", "tiny-xl"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_ask: Ask
) -> Trained:
    """An alpha that is not the rank, so that a lost alpha is seen."""
    folder = tmp_path_factory.mktemp(request.param)
    pack = write_pack(folder / "pack", request.param)
    probes = 7 if request.param == "tiny-sd" else 0
    asked = tiny_ask(
        folder / "v001", pack=pack, steps=4, token_steps=3, alpha=6.0, sample_every=probes, probe_images=1,
        learning_rate=0.05, text_layers=2,
    )  # fmt: skip
    return Trained(pack, asked, NativeTrainer("cpu").train(asked, SilentProgress()))


def opened(pack: OpenPack, artifact: Path | None = None) -> Family:
    pipeline = open_pipeline(pack, artifact, dtype=torch.float32, device=CPU)
    family: Family = family_of("stable_diffusion")(pipeline)
    return family


def networks(family: Family) -> list[Any]:
    return [family.network, family.pipeline.vae, *family.encoders.values()]


def latents(family: Family) -> torch.Tensor:
    text, negative = family.text([PROMPT]), family.text([NEGATIVE])
    return drawn(family.pipeline, latents=family.noise([3], (32, 32)), **family.words(text, negative))


def drawn(pipeline: Any, **asked: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    found: torch.Tensor = pipeline(
        num_inference_steps=2, guidance_scale=5.0, width=32, height=32, output_type="latent", **asked
    ).images
    return found


def test_the_lora_is_one_file_under_kohyas_names(trained: Trained) -> None:
    keys = load_file(trained.artifact / WEIGHTS).keys()
    prefixes = {key.split("text_model")[0] if "text_model" in key else "unet" for key in keys}
    assert prefixes == {"unet", *(("lora_te1_", "lora_te2_") if trained.is_xl else ("lora_te_",))}
    block = "input_blocks_3_1" if trained.is_xl else "down_blocks_1_attentions_0"
    assert f"lora_unet_{block}_transformer_blocks_0_attn1_to_q.lora_down.weight" in keys
    assert not (trained.artifact / TEXT_ENCODER).exists()
    assert (trained.artifact / "tokenizer_2").is_dir() == trained.is_xl


def test_plain_diffusers_draws_the_same_with_every_key_matched(trained: Trained) -> None:
    ours = opened(trained.pack, trained.artifact)
    kind = StableDiffusionXLPipeline if trained.is_xl else StableDiffusionPipeline
    left_out = {} if trained.is_xl else {"safety_checker": None}
    plain = kind.from_pretrained(trained.pack.folder, local_files_only=True, **left_out)
    plain.scheduler = EulerDiscreteScheduler.from_config(plain.scheduler.config)
    plain.load_lora_weights(trained.artifact, weight_name=WEIGHTS, adapter_name=ADAPTER)
    encoders = [plain.text_encoder, plain.text_encoder_2] if trained.is_xl else [plain.text_encoder]
    modules = {key.partition(".")[0] for key in load_file(trained.artifact / WEIGHTS)}
    assert sum(len(dict(lora_layers(part))) for part in (plain.unet, *encoders)) == len(modules) > 0
    if trained.is_xl:
        rows = load_file(trained.artifact / TOKEN)
        pairs = {"clip_l": (plain.tokenizer, encoders[0]), "clip_g": (plain.tokenizer_2, encoders[1])}
        for name, (tokenizer, encoder) in pairs.items():
            plain.load_textual_inversion(rows[name], "<oblik_s>", tokenizer=tokenizer, text_encoder=encoder)
        # Its configuration has the old eos_token_id of 2, with which CLIP takes the largest id: the token's.
        encoders[1].text_model.eos_token_id = plain.tokenizer_2.eos_token_id
    else:
        plain.load_textual_inversion(trained.artifact, weight_name=TOKEN, token="<oblik_s>")
    noise = ours.noise([3], (32, 32))
    theirs = drawn(plain, latents=noise, prompt=PROMPT, negative_prompt=NEGATIVE)
    assert torch.allclose(latents(ours), theirs, atol=1e-5)
    assert not torch.allclose(latents(opened(trained.pack)), theirs, atol=1e-2)


def test_what_was_learned_reaches_every_part(trained: Trained) -> None:
    family = opened(trained.pack, trained.artifact)
    for part in (family.network, *family.encoders.values()):
        layers = [layer for _, layer in lora_layers(part)]
        assert any(layer.lora_B[ADAPTER].weight.abs().max() > 0 for layer in layers)
    assert read_artifact(trained.artifact).token_id == len(family.pipeline.tokenizer) - 1
    before = latents(family)
    family.scale_lora(0.0)
    assert not torch.allclose(latents(family), before, atol=1e-3)


def test_a_stopped_run_goes_on_by_a_memory_plan_to_the_same_weights(
    trained: Trained, tmp_path: Path, tiny_ask: Ask
) -> None:
    """Times are whole numbers here: moved to the grid of flow matching, they would all be the first."""
    changes = {**trained.request.config.model_dump(), "sample_every": 0}
    out = tmp_path / "v001"
    asked = iter([False] * 9)
    with pytest.raises(JobCancelled):
        NativeTrainer("cpu").train(
            tiny_ask(out, pack=trained.pack, **changes), SilentProgress(cancelled=lambda: next(asked, True))
        )
    assert not (out / "lora.json").exists()
    again = tiny_ask(out, pack=trained.pack, resume=True, **changes)
    NativeTrainer("cpu", vram_bytes=2 * GIB).train(again, SilentProgress())
    chosen = read_artifact(out).memory_plan
    assert chosen is not None
    assert (chosen.attention, chosen.baked_modulation, chosen.offload_blocks) == ("diffusers", False, 0)
    for name in (WEIGHTS, TOKEN):
        one, other = load_file(out / name), load_file(trained.artifact / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def spoiled(trained: Trained, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The artifact with its LoRA changed."""
    shutil.copytree(trained.artifact, folder)
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


def stranger(tensors: dict[str, torch.Tensor]) -> None:
    for key in [key for key in tensors if "attn1_to_q." in key]:
        tensors[key.replace("attn1_to_q", "attn9_to_q")] = tensors[key].clone()


def half(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(key for key in tensors if "lora_up" in key)]


def token(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bundle_emb.person.clip_l"] = torch.zeros(16)


def wider(tensors: dict[str, torch.Tensor]) -> None:
    key = next(key for key in tensors if "unet" in key and "lora_up" in key)
    tensors[key] = torch.zeros(len(tensors[key]) + 1, tensors[key].shape[1])


@pytest.mark.parametrize("trained", ["tiny-sd"], indirect=True)
@pytest.mark.parametrize("change", [stranger, half, token, wider])
def test_a_lora_that_does_not_fit_whole_is_refused(
    trained: Trained, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    artifact = spoiled(trained, tmp_path / "v002", change)
    with pytest.raises(LoraBroken):
        opened(trained.pack, artifact)


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-xl"])
def test_a_checkpoint_file_is_the_same_networks(tmp_path: Path, name: str) -> None:
    pack = write_pack(tmp_path / "pack", name)
    folder = opened(pack)
    alone = opened(as_checkpoint(pack))
    for one, other in zip(networks(folder), networks(alone), strict=True):
        weights, again = one.state_dict(), other.state_dict()
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert torch.equal(latents(folder), latents(alone))
