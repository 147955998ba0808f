"""Qwen-Image's VAE on a still image: its causal 3D convolutions as the 2D ones that they are there.

In: a diffusers VAE. Out: the same VAE; inside the block one frame costs about a third. A causal convolution
over one frame sees zeros before it, so only the last slice in time of its kernel meets the image. Knows
nothing of what is encoded.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor
from torch.nn.functional import conv2d


@contextmanager
def one_frame(vae: Any) -> Iterator[None]:
    """Inside, the VAE computes single frames in 2D, and more of them as ever."""
    convolutions = [part for part in vae.modules() if isinstance(part, QwenImageCausalConv3d)]
    for convolution in convolutions:
        convolution.forward = partial(_forward, convolution)
    try:
        yield
    finally:
        for convolution in convolutions:
            del convolution.forward


def _forward(conv: Any, x_BCTHW: Tensor, past: Tensor | None = None) -> Tensor:
    if x_BCTHW.shape[2] != 1 or past is not None:
        out: Tensor = type(conv).forward(conv, x_BCTHW, past)
        return out
    columns, _, rows, *_ = conv._padding
    flat_BCHW = conv2d(x_BCTHW[:, :, 0], conv.weight[:, :, -1], conv.bias, conv.stride[1:], (rows, columns))
    return flat_BCHW[:, :, None]
