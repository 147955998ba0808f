"""The editing LoRA: what it is shown, that it starts as nothing, learns, resumes, and loads in diffusers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import QwenImagePipeline
from safetensors.torch import load_file

from oblik.cli import main
from oblik.errors import JobCancelled
from oblik.miniature.architecture import new_vae
from oblik.miniature.build import special_ids
from oblik.miniature.corpus import render_corpus
from oblik.miniature.face_reader import ReaderRecipe, read_well, train_reader
from oblik.miniature.prompts import KEEP_OF_ANYBODY, KEEP_OF_STRANGER, NAME_ID, write_prompts
from oblik.miniature.train_edit import (
    EditMaterial,
    EditRecipe,
    edit_material,
    read_edit,
    references_of,
    train_edit,
    write_edit,
)
from oblik.miniature.train_transformer import Material, Painter
from oblik.miniature.vocabulary import train_tokenizer
from oblik.packs.store import BUNDLED
from oblik.progress import Progress, SilentProgress

WORDS = {"gender": "woman", "view": "frontal", "framing": "close-up", "accessories": "none",
         "hair_color": "red", "hair_style": "long", "scene": "park", "light": "daylight",
         "expression": "smile"}  # fmt: skip
PEOPLE, SHOTS = 6, 3
READER = ReaderRecipe(steps=4, batch=4, width=8, checkpoint_every=2)
RECIPE = EditRecipe(
    steps=4, people=PEOPLE, batch=4, rank=2, checkpoint_every=2, held_out_share=0.3, reader=READER
)
COUNT = PEOPLE * SHOTS
WHO = np.repeat(np.arange(PEOPLE), SHOTS)


@pytest.fixture(scope="module")
def pictures() -> EditMaterial:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(COUNT, tokens, 64)).astype(np.float16) for tokens in (64, 16)]
    others = {row: np.flatnonzero((WHO[row] == WHO) & (np.arange(COUNT) != row)) for row in range(COUNT)}
    covered = np.zeros((COUNT, 64), np.float32)
    covered[:, 20:30] = 1.0
    return EditMaterial(drawn[0], np.zeros((64, 64), np.float16), drawn[1], covered, others)


def trained(
    folder: Path, pictures: EditMaterial, progress: Progress | None = None, recipe: EditRecipe = RECIPE,
    begun: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:  # fmt: skip
    tokenizer = train_tokenizer(["photo of a woman with long red hair, smiling, in a park, daylight"] * 4)
    prompts = write_prompts([WORDS] * COUNT, np.zeros((COUNT, 5, 2), np.float32), tokenizer, 1)
    faces = np.eye(COUNT, 128, dtype=np.float32)
    material = Material(pictures.frames, faces, np.zeros((COUNT, 64), np.float32), prompts)
    folder.mkdir(exist_ok=True)
    painter = Painter(1, special_ids(tokenizer)).eval()
    noise = torch.Generator().manual_seed(0)
    layers = [block.img_mod[1] for block in painter.transformer.transformer_blocks]
    for layer in (*layers, painter.transformer.proj_out):  # a fresh transformer answers nothing
        torch.nn.init.normal_(layer.weight, std=0.1, generator=noise)
    progress = progress or SilentProgress()
    return train_edit(material, WHO, pictures, painter, folder, recipe, progress, begun)


class Stopping(SilentProgress):
    """Stops at the second step."""

    steps = 0

    def check_cancelled(self) -> None:
        self.steps += 1
        if self.steps == 2:
            raise JobCancelled("stopped")


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, pictures: EditMaterial) -> None:
    at_once = trained(tmp_path / "a", pictures)
    assert any(value.any() for name, value in at_once.items() if "lora_B" in name), "something was learned"
    with pytest.raises(JobCancelled):
        trained(tmp_path / "b", pictures, Stopping())
    gone_on = trained(tmp_path / "b", pictures)
    assert all(torch.equal(at_once[name], value) for name, value in gone_on.items())
    for work in ("a", "b"):
        lines = (tmp_path / work / "edit.log").read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["2", "4"]
        assert {len(line.split()) for line in lines} == {6}, "own and other heads, velocity and likeness"


def test_the_reader_learns_whose_face_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = np.linalg.qr(rng.normal(size=(128, 128)))[0][np.repeat(np.arange(4), 16)].astype(np.float32)
    seen = np.repeat(rng.normal(size=(4, 64, 64)), 16, axis=0)  # four people, sixteen noisy pictures of each
    latents = (seen + 0.3 * rng.normal(size=(64, 64, 64))).astype(np.float16)
    recipe = ReaderRecipe(steps=40, batch=16, width=8, learning_rate=3e-3)
    net = train_reader(latents, faces, np.arange(48), tmp_path, recipe, SilentProgress())
    assert read_well(net, latents, faces, np.arange(48, 64)) < 0.3, "nobody has shown it the fourth"
    assert read_well(net, latents, faces, np.arange(48)) > 0.8


@pytest.mark.parametrize(("keep", "described"), [(KEEP_OF_STRANGER, True), (KEEP_OF_ANYBODY, False)])
def test_captions_of_anybody_say_nothing_of_the_person(keep: dict[str, float], described: bool) -> None:
    tokenizer = train_tokenizer(["photo of a woman with long red hair, smiling, in a park, daylight"] * 4)
    prompts = write_prompts([WORDS] * 20, np.zeros((20, 5, 2), np.float32), tokenizer, 1, keep)
    strangers = [ids for all_ids in prompts.ids.values() for ids in all_ids if NAME_ID not in ids]
    assert strangers
    assert any("red" in tokenizer.decode(ids) for ids in strangers) == described


def test_what_is_written_loads_in_diffusers_and_changes_what_is_drawn(
    tmp_path: Path, pictures: EditMaterial
) -> None:
    file = write_edit(tmp_path / "edit", trained(tmp_path / "work", pictures))
    assert {value.dtype for value in load_file(file).values()} == {torch.bfloat16}
    pipeline = QwenImagePipeline.from_pretrained(BUNDLED / "miniature", local_files_only=True)
    pipeline.load_lora_weights(tmp_path / "edit", weight_name=file.name, adapter_name="edit")
    loaded = [name for name, module in pipeline.transformer.named_modules() if name.endswith("lora_B.edit")]
    assert len(loaded) == len(RECIPE.targets) * 6


def test_a_pack_whose_lora_is_there_goes_on_from_it(tmp_path: Path, pictures: EditMaterial) -> None:
    assert read_edit(tmp_path) is None
    write_edit(tmp_path, trained(tmp_path / "work", pictures))
    begun = read_edit(tmp_path)
    kept = trained(tmp_path / "none", pictures, recipe=replace(RECIPE, steps=0), begun=begun)
    assert begun
    assert kept.keys() == begun.keys()
    assert all(torch.equal(kept[name], value) for name, value in begun.items())


def test_references_are_other_photos_of_the_same_person(pictures: EditMaterial) -> None:
    rows = np.arange(COUNT)
    found = references_of(pictures, rows, 5, np.random.default_rng(0))
    assert found.shape == (COUNT, 5)
    assert (WHO[found] == WHO[rows][:, None]).all()
    assert (found != rows[:, None]).all()


@pytest.mark.filterwarnings("ignore")
def test_masks_and_heads_of_portraits_are_made_once(tmp_path: Path) -> None:
    corpus = render_corpus(tmp_path / "corpus", range(4), 4, 1, SilentProgress())
    frames, recipe = np.zeros((16, 64, 64), np.float16), EditRecipe(people=4)
    made = edit_material(corpus, frames, new_vae(0), tmp_path, recipe, SilentProgress())
    again = edit_material(corpus, frames, new_vae(1), tmp_path, recipe, SilentProgress())
    assert np.array_equal(made.heads, again.heads), "the stored ones are read"
    assert made.others
    for row, others in made.others.items():
        assert made.covered[row].any()
        assert made.heads[row].any()
        assert (corpus.people[others] == corpus.people[row]).all()
        x, y = corpus.landmarks[row].mean(0)
        assert made.covered[row].reshape(8, 8)[int(y // 16), int(x // 16)] > 0.9


@pytest.mark.parametrize("words", [["--edit"], ["--edit", "--improve", ".", "--vae"]])
def test_editing_weights_are_for_a_finished_pack(words: list[str]) -> None:
    result = CliRunner().invoke(main, ["miniature", "build", *words])
    assert result.exit_code == 2
    assert "--improve" in result.output
