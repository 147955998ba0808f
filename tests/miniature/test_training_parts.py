"""Small truths that pretraining stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from oblik.miniature.build import leave_one_out, pack_latents
from oblik.miniature.checkpoint import cosine, draw, resume, save
from oblik.miniature.corpus import HELD_OUT, open_corpus, render_corpus, shot_of
from oblik.miniature.train_faces import _heatmaps, _moved
from oblik.miniature.train_transformer import flow_times, trapezoid
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
