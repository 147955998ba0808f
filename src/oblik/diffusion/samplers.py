"""Samplers: how a pipeline steps from noise to a picture, by name.

In: a diffusers pipeline, a sampler's name, seeds. Out: the pipeline with that sampler, its noise drawn by the
seeds. Euler is diffusers' own, on flow matching and on Stable Diffusion; there Euler ancestral is, too. On
flow matching, x_sigma = (1 - sigma) x_0 + sigma eps, Euler ancestral is this: for a step from s to t < s,

    d  = t^2 / s                                    how far down the step goes
    x_d = x_s + (d - s) v                           Euler's step (eps and x_0 as v says)
    x_t = a x_d + sqrt(t^2 - a^2 d^2) n,   a = (1 - t) / (1 - d),   n fresh noise

d / t = t / s is the ancestral step of variance-exploding diffusion (Song et al. 2021, eq. 36-37, where
sigma_down = t^2 / s); a brings x_0's share back to 1 - t and the root brings the noise's back to t. The last
step, t = 0, adds none. Knows nothing of networks.

B pictures; the rest of a latent's shape is whatever the pipeline packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from oblik.errors import BackendUnavailable

STEP_NOISE = 1
"""Tells a seed's noise of the steps from the noise that its picture starts from: equal noise would add up."""


class FlowMatchEulerAncestral(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler ancestral on flow matching, with a generator for each picture (`begin`)."""

    generators: Sequence[torch.Generator] = ()

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True, **_: Any
    ) -> Any:
        """One step down, and noise; float32 inside, as Euler's."""
        if self.step_index is None:
            self._init_step_index(timestep)
        s, t = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        noise = torch.stack([torch.randn(sample.shape[1:], generator=each) for each in self.generators])
        stepped = ancestral(sample.float(), model_output.float(), s, t, noise.to(sample.device))
        self._step_index += 1
        return (stepped.to(model_output.dtype),)


def ancestral(x_s: Tensor, v: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The step above, from sigma ``s`` to ``t``."""
    down = t**2 / s
    share = (1 - t) / (1 - down)
    spread = (t**2 - (share * down) ** 2).clamp(min=0).sqrt()
    stepped: Tensor = share * (x_s + (down - s) * v) + spread * noise
    return stepped


FLOW = {"euler": FlowMatchEulerDiscreteScheduler, "euler_ancestral": FlowMatchEulerAncestral}
DISCRETE = {"euler": EulerDiscreteScheduler, "euler_ancestral": EulerAncestralDiscreteScheduler}


def use(pipeline: Any, name: str) -> None:
    """Have a pipeline step by the sampler ``name``; times, betas and prediction stay the pack's.

    Raises:
        BackendUnavailable: this kind of model has no such sampler here.
    """
    table: dict[str, Any] = (
        FLOW if isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler) else DISCRETE
    )
    if name not in table:
        raise BackendUnavailable(f"no sampler is called {name!r}", hint=f"known: {', '.join(table)}")
    if type(pipeline.scheduler) is not table[name]:
        pipeline.scheduler = table[name].from_config(pipeline.scheduler.config)


def begin(pipeline: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """Make ready for these pictures: what the pipeline's call must be told beside its latents."""
    generators = [_generator(seed) for seed in seeds]
    if isinstance(pipeline.scheduler, FlowMatchEulerAncestral):
        pipeline.scheduler.generators = generators
    elif isinstance(pipeline.scheduler, EulerAncestralDiscreteScheduler):
        return {"generator": generators}
    return {}


def _generator(seed: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, STEP_NOISE)).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]))
