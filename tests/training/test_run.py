"""What a run does with its settings, on base models with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.training.conftest import write_pictures
from tests.training.tiny import open_tiny

from oblik.datasets.manifest import Kind
from oblik.diffusion import text_lora
from oblik.errors import BackendUnavailable, InvalidInput, LoraBroken, OutOfMemory, TrainingDiverged
from oblik.packs.manifest import OpenPack
from oblik.personas.persona import Persona
from oblik.progress import SilentProgress
from oblik.training.artifact import (
    CURVES,
    METRICS,
    TEXT_ENCODER,
    TOKEN,
    WEIGHTS,
    LossPoint,
    TrainingLog,
    read_artifact,
)
from oblik.training.backends.native import NativeTrainer
from oblik.training.backends.pictures import shrunk
from oblik.training.backends.run import has_grown
from oblik.training.trainer import TrainRequest

Ask = Callable[..., TrainRequest]
CPU = torch.device("cpu")


def train(request: TrainRequest, opened: Callable[..., Any] = open_tiny) -> Path:
    return NativeTrainer("cpu", opened).train(request, SilentProgress())


def losses(folder: Path) -> list[LossPoint]:
    return TrainingLog.model_validate_json((folder / CURVES).read_text()).losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_ask: Ask) -> Path:
    return train(tiny_ask(tmp_path_factory.mktemp("loras") / "v001"))


def test_words_come_first_then_the_network_and_both_losses_are_shown(trained: Path) -> None:
    points = losses(trained)
    assert [point.stage for point in points] == ["words"] * 3 + ["network"] * 6
    lines = [json.loads(line) for line in (trained / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert all(line["steps_per_s"] > 0 and line["rate"] > 0 for line in lines)
    assert {name for point in points for name in point.terms} == {"photo", "prior"}
    manifest = read_artifact(trained)
    assert (manifest.device, manifest.chosen_step, manifest.steps) == ("cpu", None, 9)


def test_the_text_lora_has_comfyui_names_and_comes_back(
    trained: Path, tiny_pack: OpenPack, tmp_path: Path
) -> None:
    tensors = load_file(trained / TEXT_ENCODER)
    assert {key.split(".self_attn")[0] for key in tensors} == {
        "text_encoders.qwen25_7b.transformer.model.layers.2"
    }
    assert any(value.abs().max() > 0 for key, value in tensors.items() if "lora_B" in key)
    bare, taught = (open_tiny(tiny_pack, torch.float32, CPU).text_encoder for _ in range(2))
    text_lora.load({"qwen25_7b": taught}, trained / TEXT_ENCODER)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before, after = (e(ids, output_hidden_states=True).hidden_states for e in (bare, taught))
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[3], after[3])
    text_lora.export({"qwen25_7b": taught}, tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_a_text_lora_that_fits_no_encoder_is_refused(trained: Path, tiny_pack: OpenPack) -> None:
    encoder = open_tiny(tiny_pack, torch.float32, CPU).text_encoder
    with pytest.raises(LoraBroken, match="fit no text encoder"):
        text_lora.load({"clip_l": encoder}, trained / TEXT_ENCODER)


def test_no_other_row_of_the_vocabulary_changes(tmp_path: Path, tiny_ask: Ask) -> None:
    kept: dict[str, Any] = {}

    def opened(*asked: Any) -> Any:
        pipeline = open_tiny(*asked)
        kept.update(pipeline.components)
        return pipeline

    request = tiny_ask(tmp_path / "v001")
    train(request, opened)
    fresh = open_tiny(request.pack, torch.float32, CPU)
    for name in ("text_encoder", "transformer", "vae"):
        before, after = getattr(fresh, name).state_dict(), kept[name].state_dict()
        base = {key.replace(".base_layer", ""): value for key, value in after.items() if ".lora_" not in key}
        assert base.keys() == before.keys()
        assert all(torch.equal(base[key], before[key]) for key in before)
    noun = fresh.tokenizer(" person")["input_ids"]
    start = fresh.text_encoder.get_input_embeddings().weight[noun].mean(0)
    assert not torch.equal(load_file(tmp_path / "v001" / TOKEN)["token"], start)


class Counting:
    """Opens the tiny pipeline and counts what its encoders are asked."""

    def __init__(self) -> None:
        self.pictures = self.texts = 0

    def __call__(self, *asked: Any) -> Any:
        pipeline = open_tiny(*asked)
        halved = next(each for each in pipeline.vae.encoder.down_blocks if hasattr(each, "resample"))
        halved.resample.register_forward_hook(lambda *_: self._count("pictures"))
        pipeline.text_encoder.register_forward_hook(lambda *_: self._count("texts"))
        return pipeline

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)


def test_latents_and_texts_are_encoded_once_for_all_runs(
    tmp_path: Path, tiny_ask: Ask, persona: Persona
) -> None:
    folder, caches = tmp_path / "data", tmp_path / "caches"
    folder.mkdir()
    write_pictures(folder, persona)
    counts = []
    for run in range(3):
        if run == 2:
            other = np.random.default_rng(9).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(other).save(folder / "32x32-0.png")
        counting = Counting()
        train(tiny_ask(tmp_path / f"v00{run}", folder=folder, caches=caches, token_steps=0), counting)
        counts.append((counting.pictures, counting.texts > 0))
    assert counts == [(8, True), (0, False), (1, False)]
    assert all(file.stat().st_mode & 0o077 == 0 for file in caches.rglob("*"))


def test_photos_are_shrunk_by_one_scale_and_cut_to_what_the_pack_divides() -> None:
    assert shrunk((768, 1024), 512, 16) == (512, 672)
    assert shrunk((1376, 768), 512, 16) == (912, 512)
    assert shrunk((768, 1024), 0, 16) == (768, 1024)
    with pytest.raises(InvalidInput, match="cannot be learned") as refused:
        shrunk((512, 512), 768, 16)
    assert refused.value.hint == "oblik train --size 512"


def test_a_smaller_size_is_learned_from_smaller_latents(
    tmp_path: Path, tiny_ask: Ask, persona: Persona
) -> None:
    write_pictures(tmp_path, persona, sizes=((64, 48),))
    seen = []

    def opened(*asked: Any) -> Any:
        pipeline = open_tiny(*asked)
        pipeline.transformer.register_forward_pre_hook(
            lambda _, __, words: seen.append(words["img_shapes"][0][0]), with_kwargs=True
        )
        return pipeline

    caches = tmp_path / "caches"
    for name, size in (("v001", 0), ("v002", 32)):
        train(tiny_ask(tmp_path / name, folder=tmp_path, caches=caches, size_px=size, steps=2), opened)
    assert set(seen) == {(1, 3, 4), (1, 2, 2)}


def test_a_batch_lies_within_one_size(tmp_path: Path, tiny_ask: Ask, persona: Persona) -> None:
    write_pictures(tmp_path, persona, sizes=((32, 32), (32, 48)))
    seen = []

    def opened(*asked: Any) -> Any:
        pipeline = open_tiny(*asked)
        pipeline.transformer.register_forward_pre_hook(
            lambda _, __, words: seen.append((words["hidden_states"].shape[1], words["img_shapes"][0][0])),
            with_kwargs=True,
        )
        return pipeline

    train(tiny_ask(tmp_path / "v001", folder=tmp_path, steps=8), opened)
    assert set(seen) == {(4, (1, 2, 2)), (6, (1, 3, 2))}


def test_other_people_are_terms_of_their_own(tmp_path: Path, tiny_ask: Ask, persona: Persona) -> None:
    write_pictures(tmp_path, persona, extras=(Kind.class_image, Kind.negative))
    asked = {"class_share": 0.3, "negative_share": 0.3}
    points = losses(train(tiny_ask(tmp_path / "v001", folder=tmp_path, **asked)))
    assert {name for point in points for name in point.terms} == {"photo", "prior", "class", "negative"}


def test_a_side_that_the_pack_does_not_divide_is_refused(
    tmp_path: Path, tiny_ask: Ask, persona: Persona
) -> None:
    write_pictures(tmp_path, persona, sizes=((32, 40),))
    with pytest.raises(InvalidInput, match="multiples of 16"):
        train(tiny_ask(tmp_path / "v001", folder=tmp_path))


@pytest.mark.parametrize("changed", [{"micro_batch": 1}, {"gradient_checkpointing": True}])
def test_what_saves_memory_does_not_change_what_is_learned(
    tmp_path: Path, trained: Path, tiny_ask: Ask, changed: dict[str, Any]
) -> None:
    other = train(tiny_ask(tmp_path / "v001", **changed))
    for mine, theirs in zip(losses(trained), losses(other), strict=True):
        assert mine.train == pytest.approx(theirs.train, rel=1e-4)
    one, two = load_file(trained / WEIGHTS), load_file(other / WEIGHTS)
    assert all(torch.allclose(one[key], two[key], atol=2e-4) for key in one)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_learns_in_float32(tmp_path: Path, tiny_ask: Ask, dtype: str) -> None:
    tensors = load_file(train(tiny_ask(tmp_path / "v001", dtype=dtype, ema=0.9)) / WEIGHTS)
    assert all(torch.isfinite(value).all() and value.dtype == torch.float32 for value in tensors.values())
    assert any(value.abs().max() > 0 for key, value in tensors.items() if "lora_B" in key)


def test_validation_without_gain_ends_the_run(tmp_path: Path, tiny_ask: Ask) -> None:
    out = train(tiny_ask(tmp_path / "v001", patience=1, learning_rate=1e-30, steps=60))
    assert read_artifact(out).steps == 9


def test_a_loss_that_is_no_number_stops_and_offers_the_last_good_checkpoint(
    tmp_path: Path, tiny_ask: Ask
) -> None:
    with pytest.raises(TrainingDiverged) as stopped:
        train(tiny_ask(tmp_path / "v001", learning_rate=1e30, steps=20, warmup_steps=1))
    assert "oblik train --resume" in stopped.value.hint
    checkpoints = sorted((tmp_path / "v001" / "work").glob("step-*.pt"))
    assert checkpoints
    for file in checkpoints:
        weights = torch.load(file, weights_only=True)["stages"]["network"]["parameters"]
        assert all(torch.isfinite(value).all() for value in weights)


def test_a_growing_loss_is_told_from_a_noisy_one() -> None:
    noisy = [0.3, 0.6, 0.1] * 20
    assert not has_grown(noisy)
    assert has_grown([*noisy, *(2.0 + step for step in range(20))])


def test_what_is_missing_is_named_with_the_command(tmp_path: Path, tiny_ask: Ask) -> None:
    with pytest.raises(BackendUnavailable) as missing:
        train(tiny_ask(tmp_path / "v001", optimiser="adamw8bit"))
    assert missing.value.hint == "oblik train --optimiser adamw"
    if find_spec("tensorboard") is None:
        with pytest.raises(BackendUnavailable) as missing:
            train(tiny_ask(tmp_path / "v002", tensorboard=True))
        assert missing.value.hint == "pip install tensorboard"


@pytest.mark.parametrize("targets", [("to_q", "atention"), ("ff.net.2",)])
def test_targets_that_the_model_lacks_are_named(
    tmp_path: Path, tiny_ask: Ask, targets: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput, match=f"no layer called '{targets[-1]}'"):
        train(tiny_ask(tmp_path / "v001", targets=targets))


def test_a_full_card_is_told_with_a_smaller_plan(tmp_path: Path, tiny_ask: Ask) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory) as stopped:
        train(tiny_ask(tmp_path / "v001"), full)
    assert "--micro-batch 1" in stopped.value.hint
