"""Samplers keep to their formulas, and their noise to the seeds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from oblik.diffusion import samplers
from oblik.diffusion.families.family import drawn
from oblik.errors import BackendUnavailable

STEPS, SHAPE = 6, (4, 8)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def flow(name: str = "euler_ancestral") -> Any:
    """A pipeline's scheduler, set and started as a pipeline does."""
    pipeline = SimpleNamespace(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    )
    samplers.use(pipeline, name)
    pipeline.scheduler.set_timesteps(STEPS, mu=0.6)
    pipeline.scheduler.set_begin_index(0)
    return pipeline


def sample(seeds: tuple[int, ...], x_0: float = 0.5, name: str = "euler_ancestral") -> torch.Tensor:
    """Where sampling ends when the network knows the picture: v = (x_sigma - x_0) / sigma."""
    pipeline = flow(name)
    samplers.begin(pipeline, seeds)
    x = drawn(seeds, SHAPE)
    for place, time in enumerate(pipeline.scheduler.timesteps):
        v = (x - x_0) / pipeline.scheduler.sigmas[place]
        x = pipeline.scheduler.step(v, time, x, return_dict=False)[0]
    return x


def test_a_step_is_the_formula() -> None:
    x, v, noise = (torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(k)) for k in range(3))
    s, t = torch.tensor(0.8), torch.tensor(0.5)
    down = 0.5**2 / 0.8
    share = (1 - 0.5) / (1 - down)
    expected = share * (x + (down - 0.8) * v) + (0.25 - (share * down) ** 2) ** 0.5 * noise
    assert torch.allclose(samplers.ancestral(x, v, s, t, noise), expected, atol=1e-6)
    assert torch.equal(samplers.ancestral(x, v, s, torch.tensor(0.0), noise), x - s * v)


def test_what_a_step_leaves_is_a_point_between_picture_and_noise_again() -> None:
    """x_t = (1 - t) x_0 + t eps: the mean and the spread of many pixels say so, from the first step on."""
    noise, fresh = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
    for s, t in ((1.0, 0.9), (0.7, 0.3), (0.3, 0.05)):
        x = (1 - s) * 2.0 + s * noise
        stepped = samplers.ancestral(x, noise - 2.0, torch.tensor(s), torch.tensor(t), fresh)
        assert stepped.mean().item() == pytest.approx((1 - t) * 2.0, abs=0.01)
        assert stepped.std().item() == pytest.approx(t, rel=0.01)


def test_sampling_ends_at_the_picture() -> None:
    assert torch.allclose(sample((3, 4)), torch.full((2, *SHAPE), 0.5), atol=1e-5)


def test_noise_is_the_seeds_own_in_every_batch_and_not_that_of_the_start() -> None:
    def noises(seeds: tuple[int, ...]) -> list[torch.Tensor]:
        pipeline = flow()
        samplers.begin(pipeline, seeds)
        return [torch.randn(SHAPE, generator=each) for each in pipeline.scheduler.generators]

    together = noises((3, 4))
    assert torch.equal(together[1], noises((4,))[0])
    assert not torch.equal(together[0], together[1])
    start = drawn((3,), SHAPE)[0]
    assert abs(torch.corrcoef(torch.stack([start.flatten(), together[0].flatten()]))[0, 1]) < 0.5


def test_times_stay_the_packs() -> None:
    euler, ancestral = flow("euler").scheduler, flow().scheduler
    assert torch.equal(euler.sigmas, ancestral.sigmas)
    assert type(euler) is FlowMatchEulerDiscreteScheduler
    assert ancestral.config.shift_terminal == 0.02


def test_back_to_euler() -> None:
    pipeline = flow()
    samplers.use(pipeline, "euler")
    assert type(pipeline.scheduler) is FlowMatchEulerDiscreteScheduler


def test_stable_diffusion_has_the_library_s_own_and_a_generator_for_each_seed() -> None:
    pipeline = SimpleNamespace(scheduler=EulerDiscreteScheduler(prediction_type="v_prediction"))
    assert samplers.begin(pipeline, (1, 2)) == {}
    samplers.use(pipeline, "euler_ancestral")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert len(samplers.begin(pipeline, (1, 2))["generator"]) == 2


def test_an_unknown_sampler_is_refused_with_the_list() -> None:
    with pytest.raises(BackendUnavailable) as refused:
        flow("heun")
    assert refused.value.hint == "known: euler, euler_ancestral"
