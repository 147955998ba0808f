"""Flow matching as Qwen-Image trains and samples it.

    x_sigma = (1 - sigma) x_0 + sigma eps,   v = eps - x_0        (Lipman et al. 2023; Liu et al. 2023)

Times are logit-normal (Esser et al. 2024, section 3.1) and shifted by the scheduler's own mu, so that
training sees the noise levels that sampling visits. Knows nothing of networks.

B batch, T image tokens, C packed channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def shift_mu(config: Mapping[str, Any], image_tokens: int) -> float:
    """The scheduler's mu for an image of that many tokens (linear between its two anchors)."""
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (high - low)
    return float(config["base_shift"] + slope * (image_tokens - low))


def training_times(count: int, mu: float, generator: torch.Generator) -> Tensor:
    """Times sigma (count,) in (0, 1): logit-normal, then shifted by exp(mu)."""
    t = torch.sigmoid(torch.randn(count, generator=generator))
    shift = torch.exp(torch.tensor(mu))
    return shift * t / (1 + (shift - 1) * t)


def noised(x0_BTC: Tensor, eps_BTC: Tensor, sigma_B: Tensor) -> Tensor:
    """The point at sigma on the straight line from image to noise."""
    return torch.lerp(x0_BTC, eps_BTC, sigma_B[:, None, None])


def squared_error(v_BTC: Tensor, target_BTC: Tensor) -> Tensor:
    """Squared error of every image token, (B, T)."""
    return (v_BTC.float() - target_BTC).pow(2).mean(-1)


def weighted_mean(error_BT: Tensor, weight_BT: Tensor, mean: Tensor | None = None) -> Tensor:
    """Mean of the errors, each weighted relative to the mean weight, which may be that of a larger batch."""
    return (error_BT * weight_BT / (weight_BT.mean() if mean is None else mean)).mean()


def velocity_loss(v_BTC: Tensor, target_BTC: Tensor, weight_BT: Tensor | None = None) -> Tensor:
    """Mean squared error on v (its target: eps - x_0), each token weighted relative to the mean weight."""
    error_BT = squared_error(v_BTC, target_BTC)
    return error_BT.mean() if weight_BT is None else weighted_mean(error_BT, weight_BT)
