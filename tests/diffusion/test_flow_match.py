"""Flow matching's formulas against their definitions."""

from __future__ import annotations

import math

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from oblik.diffusion.flow_match import noised, shift_mu, training_times, velocity_loss

CONFIG = {"base_image_seq_len": 256, "max_image_seq_len": 8192, "base_shift": 0.5, "max_shift": 0.9}


def test_mu_is_what_the_pipeline_computes() -> None:
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    for tokens in (64, 256, 4096, 8192):
        assert math.isclose(
            shift_mu(CONFIG, tokens), calculate_shift(tokens, 256, 8192, 0.5, 0.9), abs_tol=1e-9
        )


def test_shifting_a_time_is_what_the_scheduler_does() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential")
    plain = training_times(50, 0.0, torch.Generator().manual_seed(3))
    shifted = training_times(50, 0.7, torch.Generator().manual_seed(3))
    assert torch.allclose(shifted, scheduler.time_shift(0.7, 1.0, plain), atol=1e-6)


def test_the_path_runs_from_image_to_noise() -> None:
    image, noise = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    assert torch.equal(noised(image, noise, torch.tensor([0.0, 1.0])), torch.stack([image[0], noise[0]]))


def test_the_true_velocity_costs_nothing_and_weights_are_relative() -> None:
    image, noise = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    assert velocity_loss(noise - image, noise - image) == 0
    wrong = torch.ones(1, 2, 4)
    wrong[0, 0] += 1
    heavy, light = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert velocity_loss(wrong, noise - image, heavy) == 3 * velocity_loss(wrong, noise - image, light)
    assert velocity_loss(wrong, noise, heavy) == velocity_loss(wrong, noise, 10 * heavy)
