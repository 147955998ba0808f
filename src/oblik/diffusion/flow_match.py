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


def velocity_loss(v_BTC: Tensor, target_BTC: Tensor, weight_BT: Tensor | None = None) -> Tensor:
    """Mean squared error on v (its target: eps - x_0), each token weighted relative to the mean weight."""
    error_BT = (v_BTC.float() - target_BTC).pow(2).mean(-1)
    if weight_BT is None:
        return error_BT.mean()
    return (error_BT * weight_BT / weight_BT.mean()).mean()
