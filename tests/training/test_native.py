"""The native trainer: what it writes, that it goes on where it stopped, what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from oblik.datasets.manifest import Split, face_vectors
from oblik.diffusion.identity import FILE, read_name
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.lora import lora_layers
from oblik.errors import JobCancelled, LoraBroken
from oblik.packs.manifest import OpenPack
from oblik.progress import SilentProgress
from oblik.training.artifact import CURVES, TOKEN, WEIGHTS, TrainingLog, read_artifact
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

Ask = Callable[..., TrainRequest]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Path:
    return NativeTrainer("cpu").train(ask(tmp_path_factory.mktemp("loras") / "v001"), SilentProgress())


def test_the_artifact_is_complete(trained: Path) -> None:
    manifest = read_artifact(trained)
    assert manifest.token_proof is not None
    assert (manifest.token_proof.kind, manifest.token_proof.token_id) == ("added", manifest.token_id)
    assert (manifest.trigger, manifest.steps, manifest.rank) == ("<oblik_s>", 10, 4)
    log = TrainingLog.model_validate_json((trained / CURVES).read_text())
    assert [point.step for point in log.losses] == list(range(1, 11))
    assert [point.step for point in log.losses if point.validation is not None] == [5, 10]


def test_every_lora_key_has_the_form_that_comfyui_and_diffusers_take(trained: Path) -> None:
    tensors = load_file(trained / WEIGHTS)
    modules = {key.rpartition(".lora_")[0] for key in tensors if ".lora_" in key}
    assert len(modules) == 6 * 8
    assert all(key.startswith("diffusion_model.transformer_blocks.") for key in tensors)
    assert {f"{module}.alpha" for module in modules} <= tensors.keys()
    assert any(tensors[f"{module}.lora_B.weight"].abs().max() > 0 for module in modules)


def test_plain_diffusers_loads_it_and_computes_what_the_trainer_computed(
    trained: Path, pack: OpenPack
) -> None:
    from diffusers import QwenImagePipeline

    plain = QwenImagePipeline.from_pretrained(pack.folder, dtype=torch.float32, local_files_only=True)
    plain.load_lora_weights(trained, weight_name=WEIGHTS)
    ours = open_pipeline(pack, trained, dtype=torch.float32, device=torch.device("cpu"))
    assert len(dict(lora_layers(ours.transformer))) == 6 * 8
    generator = torch.Generator().manual_seed(0)
    call = {
        "hidden_states": torch.randn(1, 64, 64, generator=generator),
        "encoder_hidden_states": torch.randn(1, 9, 128, generator=generator),
        "timestep": torch.tensor([0.5]),
        "img_shapes": [[(1, 8, 8)]],
        "return_dict": False,
    }
    with torch.no_grad():
        assert torch.equal(plain.transformer(**call)[0], ours.transformer(**call)[0])


def test_only_the_tokens_row_of_the_vocabulary_changes(trained: Path, pack: OpenPack) -> None:
    before = open_pipeline(pack, None, dtype=torch.float32, device=torch.device("cpu"))
    after = open_pipeline(pack, trained, dtype=torch.float32, device=torch.device("cpu"))
    changed = (_table(before) != _table(after)).any(1).nonzero().flatten().tolist()
    assert changed == [read_artifact(trained).token_id]
    assert torch.equal(_table(after)[changed[0]], load_file(trained / TOKEN)["token"])


def test_a_cancelled_run_goes_on_to_the_same_weights(tmp_path: Path, trained: Path, ask: Ask) -> None:
    asked = iter([False] * 6 + [True])
    out = tmp_path / "v001"
    with pytest.raises(JobCancelled):
        NativeTrainer("cpu").train(ask(out), SilentProgress(cancelled=lambda: next(asked)))
    NativeTrainer("cpu").train(ask(out, resume=True), SilentProgress())
    _assert_equal(out, trained)


def test_a_lora_of_another_shape_is_refused(tmp_path: Path, trained: Path, pack: OpenPack) -> None:
    from shutil import copytree

    from safetensors.torch import save_file

    broken = copytree(trained, tmp_path / "broken")
    tensors = load_file(broken / WEIGHTS)
    save_file({f"base_model.model.{key}": value for key, value in tensors.items()}, broken / WEIGHTS)
    with pytest.raises(LoraBroken):
        open_pipeline(pack, broken, dtype=torch.float32, device=torch.device("cpu"))


def _table(pipeline: object) -> torch.Tensor:
    return pipeline.text_encoder.get_input_embeddings().weight  # type: ignore[attr-defined, no-any-return]


def _assert_equal(first: Path, second: Path) -> None:
    for name in (WEIGHTS, TOKEN):
        one, other = load_file(first / name), load_file(second / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_token_starts_from_the_faces_of_the_photos(tmp_path: Path, ask: Ask) -> None:
    request = ask(tmp_path / "photos", token_steps=0, steps=1)
    faces = face_vectors(request.dataset_dir, request.dataset, Split.train)
    assert faces.shape == (6, 128)
    name = read_name(request.pack.find(str(FILE)), faces, request.dataset.face_stack)
    learned = load_file(NativeTrainer("cpu").train(request, SilentProgress()) / TOKEN)["token"]
    assert name is not None
    assert torch.equal(learned, name)
    noun = ask(tmp_path / "noun", token_steps=0, steps=1, token_start="noun")
    assert not torch.equal(
        load_file(NativeTrainer("cpu").train(noun, SilentProgress()) / TOKEN)["token"], name
    )
