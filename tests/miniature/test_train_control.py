"""A ControlNet is trained beside a finished pack: it goes on to the same weights, and only it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oblik.faces.stack import open_stack
from oblik.miniature.architecture import new_vae
from oblik.miniature.build import special_ids
from oblik.miniature.control_images import write_control_images
from oblik.miniature.corpus import render_corpus
from oblik.miniature.train_control import (
    ControlRecipe,
    Hints,
    control_times,
    draw_hints,
    material_of,
    train_control,
)
from oblik.miniature.train_transformer import Painter
from oblik.miniature.vocabulary import train_tokenizer
from oblik.packs.store import BUNDLED
from oblik.progress import SilentProgress

RECIPE = ControlRecipe(images=12, depths=2, steps=4, batch=4, checkpoint_every=2)


def test_each_row_gets_one_of_its_own_hints() -> None:
    latents = np.arange(5, dtype=np.float16)[:, None, None] * np.ones((1, 2, 3), np.float16)
    hints = Hints(latents, np.array([7, 9, 11, 9, 7]))
    drawn = {(row, float(hints.of(np.array([row]), np.random.default_rng(seed))[0, 0, 0]))
             for row in (7, 9, 11) for seed in range(20)}  # fmt: skip
    assert drawn == {(7, 0.0), (7, 4.0), (9, 1.0), (9, 3.0), (11, 2.0)}


def test_times_lean_to_noise() -> None:
    even, leaning = (control_times(4000, shift, torch.Generator().manual_seed(0)) for shift in (1.0, 3.0))
    assert float(even.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(leaning.mean()) > 0.65
    assert 0 < float(leaning.min()) < float(leaning.max()) < 1


@pytest.mark.filterwarnings("ignore")
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    corpus = render_corpus(tmp_path / "corpus", range(4), 3, 1, SilentProgress())
    tokenizer = train_tokenizer([" ".join(words.values()) for words in corpus.descriptors] * 3)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(12, 64, 64)).astype(np.float16)
    faces = rng.normal(size=(12, 128)).astype(np.float32)
    few, material = material_of(corpus, latents, faces, tokenizer, RECIPE)
    rows = np.unique(np.concatenate(list(material.prompts.rows.values())))
    hints = draw_hints(few, rows, new_vae(0).eval(), tmp_path, RECIPE, SilentProgress())
    assert len(hints.latents) == len(rows) + RECIPE.depths
    trained = []
    for name, stops in (("whole", (4,)), ("killed", (2, 4))):
        for steps in stops:
            painter = Painter(1, special_ids(tokenizer))
            torch.nn.init.normal_(painter.transformer.proj_out.weight, std=0.05)
            frozen = {key: value.clone() for key, value in painter.state_dict().items()}
            (tmp_path / name).mkdir(exist_ok=True)
            recipe = replace(RECIPE, steps=4, checkpoint_every=steps)
            net = _until(steps, painter, material, hints, tmp_path / name, recipe)
            assert all(torch.equal(value, frozen[key]) for key, value in painter.state_dict().items())
        trained.append(net)
    one, other = (dict(net.named_parameters()) for net in trained)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert float(one["controlnet_blocks.0.weight"].abs().sum()) > 0


class _Killed(SilentProgress):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def check_cancelled(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


def _until(steps, painter, material, hints, folder, recipe):  # type: ignore[no-untyped-def]
    if steps == recipe.steps:
        return train_control(painter, material, hints, folder, recipe, SilentProgress())
    with pytest.raises(InterruptedError):
        train_control(painter, material, hints, folder, recipe, _Killed(steps))
    return None


def test_the_renderers_pose_is_where_the_face_stack_finds_it(tmp_path: Path) -> None:
    photo, pose, depth = (np.asarray(Image.open(path)) for path in write_control_images(tmp_path, 3, 20.0))
    face = open_stack("onnx", folder=BUNDLED / "miniature" / "faces").detect(photo)[0]
    nose = np.argwhere((pose == (255, 0, 0)).all(-1)).mean(0)[::-1]
    assert np.linalg.norm(face.landmarks[2] - nose) < 0.03 * len(photo)
    x, y = nose.astype(int)
    assert depth[y, x, 0] > 200
    assert depth[0, 0, 0] == 0
