"""Small truths that pretraining stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from oblik.miniature.build import leave_one_out, pack_latents, shorten, special_ids
from oblik.miniature.checkpoint import cosine, draw, resume, save
from oblik.miniature.corpus import HELD_OUT, hard_shot_of, open_corpus, render_corpus, shot_of
from oblik.miniature.face_networks import Embedder
from oblik.miniature.prompts import write_prompts
from oblik.miniature.train_faces import _heatmaps, _mean_classes, _moved, embed_corpus
from oblik.miniature.train_transformer import (
    Captions,
    Material,
    Painter,
    TransformerRecipe,
    flow_times,
    on_face,
    trapezoid,
)
from oblik.miniature.vocabulary import train_tokenizer
from oblik.progress import SilentProgress


def test_a_corpus_is_rendered_once_and_read_back(tmp_path: Path) -> None:
    corpus = render_corpus(tmp_path, range(2), 2, 1, SilentProgress())
    again = open_corpus(tmp_path)
    assert corpus.images.shape == (4, 128, 128, 3)
    assert np.array_equal(corpus.images, again.images)
    assert corpus.people.tolist() == [0, 0, 1, 1]
    image, heatmaps, present = _moved(corpus, 0, np.random.default_rng(5))
    assert image.shape == (128, 128, 3)
    assert heatmaps.shape == (5, 64, 64)
    assert present == bool(heatmaps.any())


def test_shots_are_the_same_every_time() -> None:
    assert shot_of(HELD_OUT, 3) == shot_of(HELD_OUT, 3)
    assert shot_of(HELD_OUT, 3) != shot_of(HELD_OUT, 4)


def test_hard_shots_are_all_stress_and_other_shots_than_the_ordinary_ones(tmp_path: Path) -> None:
    hard = render_corpus(tmp_path, range(2), 2, 1, SilentProgress(), hard=True)
    assert hard.stress.all()
    assert hard_shot_of(3, 0)[0] != shot_of(3, 0)[0]


def test_face_vectors_are_unit_and_classes_start_at_their_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corpus = render_corpus(tmp_path, range(2), 2, 1, SilentProgress())
    vectors = embed_corpus(Embedder(), corpus, SilentProgress())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    head = torch.nn.Linear(128, 2, bias=False)
    length = head.weight.norm(dim=1).mean()
    _mean_classes(head.weight, torch.from_numpy(vectors), torch.tensor([0, 0, 1, 1]))
    mean = torch.nn.functional.normalize(torch.from_numpy(vectors[:2].sum(0)), dim=0)
    assert torch.allclose(head.weight[0], mean * length, atol=1e-5)


def test_tokens_on_the_face_are_those_around_the_landmarks() -> None:
    points = np.array([[[40, 40], [56, 40], [48, 48], [42, 56], [54, 56]]], np.float32)
    share = on_face(points).reshape(8, 8)
    assert share[2:4, 2:4].min() == 1.0
    assert share[6:].max() == share[:, 6:].max() == 0.0
    side = 2 * 1.1 * 16
    assert np.isclose(share.sum() * 16 * 16, side * side)


def test_frozen_captions_say_what_the_encoder_says() -> None:
    words = {"gender": "woman", "view": "frontal", "framing": "close-up", "accessories": "none",
             "hair_color": "red", "hair_style": "long", "scene": "park", "light": "daylight",
             "expression": "smile"}  # fmt: skip
    tokenizer = train_tokenizer(["photo of a woman with long red hair, smiling, in a park, daylight"] * 4)
    prompts = write_prompts([words] * 40, np.zeros((40, 5, 2), np.float32), tokenizer, 1)
    faces = np.eye(40, 128, dtype=np.float32)
    nothing = np.zeros((40, 64, 1), np.float16)
    material = Material(nothing, faces, np.zeros((40, 64), np.float32), prompts)
    recipe = TransformerRecipe(batch=4, empty_share=0.0, name_noise=0.0)
    painter = Painter(1, special_ids(tokenizer)).eval()
    live, frozen = Captions(material, recipe), Captions(material, recipe)
    frozen.freeze(painter, SilentProgress())
    for step in range(3):
        asked, known = (c.draw(painter, np.random.default_rng(step)) for c in (live, frozen))
        assert np.array_equal(asked.rows, known.rows)
        assert torch.allclose(asked.text, known.text.float(), atol=0.06, rtol=0.06)
        assert asked.text.requires_grad
        assert not known.text.requires_grad


def test_heatmaps_peak_where_the_point_is() -> None:
    points = np.array([[40.5, 60.5]] * 5)
    peak = np.unravel_index(_heatmaps(points)[0].argmax(), (64, 64))
    assert peak == (30, 20)


def test_a_face_vector_never_contains_its_own_photo() -> None:
    vectors = np.eye(4, dtype=np.float32)
    others = leave_one_out(vectors, np.array([7, 7, 9, 9]), np.zeros(4, bool))
    assert np.allclose(others, np.eye(4)[[1, 0, 3, 2]])


def test_packing_keeps_every_value_in_two_by_two_patches() -> None:
    latents = torch.arange(16 * 16 * 16, dtype=torch.float32).view(1, 16, 16, 16)
    packed = pack_latents(latents)
    assert packed.shape == (1, 64, 64)
    assert set(packed[0, 0].tolist()) == set(latents[0, :, :2, :2].flatten().tolist())


def test_schedules_begin_and_end_where_they_should() -> None:
    assert cosine(0, 100, warmup=10) < 0.2
    assert cosine(10, 100, warmup=10) > 0.99
    assert trapezoid(500, 1000, warmup=10) == 1.0
    assert trapezoid(999, 1000, warmup=10) < 0.01


def test_times_lie_between_image_and_noise_and_lean_to_noise() -> None:
    times = flow_times(4000, torch.Generator().manual_seed(0))
    assert 0 < times.min() < times.max() < 1
    assert 0.55 < times.mean() < 0.7


def test_a_checkpoint_brings_back_step_and_weights(tmp_path: Path) -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    save(tmp_path / "x.pt", 7, {"net": one})
    assert resume(tmp_path / "x.pt", {"net": other}) == 7
    assert torch.equal(one.weight, other.weight)
    assert resume(tmp_path / "none.pt", {"net": other}) == 0
    assert draw(1, 2)[0].integers(1000) == draw(1, 2)[0].integers(1000)


def test_short_weights_stay_close_and_end_in_zeros() -> None:
    net = torch.nn.Linear(50, 50).bfloat16()
    before = net.weight.detach().float().clone()
    shorten(net)
    after = net.weight.detach()
    assert ((after.float() - before).abs() <= before.abs() / 64).all()
    assert ((after.view(torch.int16).int() & 3) == 0).all()
