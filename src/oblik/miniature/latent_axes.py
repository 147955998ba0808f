"""The axes of a VAE's latent space, turned so that each channel says something of its own.

In: a trained VAE and images. Out: the same VAE, encoding into turned and scaled channels; the round trip does
not change, because a turn of 16 channels and its inverse fold into the 1x1 convolutions on either side.

Training leaves channels that repeat each other, and writes fine detail into their small differences, which
noise drowns first and a squared error hardly weighs. Afterwards channels are uncorrelated and have unit
variance; those to which the decoder does not listen are silent: nobody has to learn to draw them.

B batch, C channel, H height, W width.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLQwenImage
from torch import Tensor

from oblik.diffusion import still

NOISE_STD = 0.05
"""The posterior's deviation is not kept: every channel gets this one."""
PROBE = 0.1
"""Size of the disturbance that measures how much the decoder listens, in deviations."""
UNHEARD = 1e-4
"""Channels that move the picture's variance by less than this share of the first one's are silenced."""


@torch.no_grad()
def turn(vae: AutoencoderKLQwenImage, images_BCHW: Tensor) -> Tensor:
    """Turn the axes in place. Returns the picture's variance that each channel accounts for (C,), falling.

    With covariance S of the latents and Gram matrix G of the decoder's response, the channels are the
    generalised eigenvectors: S becomes the identity and G diagonal.
    """
    latents, _ = still.encode(vae, images_BCHW)
    channels = latents.shape[1]
    whiten, unwhiten = _whitening(latents)
    gram = _response(vae, latents, unwhiten)
    weights, axes = torch.linalg.eigh(gram)
    weights, axes = weights.flip(0), axes.flip(1)
    axes = axes * (weights > UNHEARD * weights[0])
    into, back = axes.T @ whiten, unwhiten @ axes
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight = quant.weight[:channels].flatten(1)
    quant.weight[:channels] = (into @ weight).view_as(quant.weight[:channels])
    quant.bias[:channels] = into @ quant.bias[:channels]
    quant.weight[channels:] = 0.0
    quant.bias[channels:] = 2 * torch.log(torch.tensor(NOISE_STD))
    post.weight.copy_((post.weight.flatten(1) @ back).view_as(post.weight))
    return torch.as_tensor(weights.clamp(min=0))


def _whitening(latents_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices to and from channels of unit variance without correlation, each (C, C)."""
    rows = latents_BCHW.permute(1, 0, 2, 3).flatten(1)
    variances, axes = torch.linalg.eigh(torch.cov(rows))
    scale = variances.clamp(min=1e-8).sqrt()
    return axes.T / scale[:, None], axes * scale


def _response(vae: AutoencoderKLQwenImage, latents_BCHW: Tensor, unwhiten_CC: Tensor) -> Tensor:
    """The decoder's Gram matrix (C, C) in whitened channels, by finite differences along one random field."""
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(latents_BCHW[:, :1].shape, generator=generator) * PROBE
    unmoved = still.decode(vae, latents_BCHW)
    moved = [
        (still.decode(vae, latents_BCHW + field * axis.view(1, -1, 1, 1)) - unmoved).flatten() / PROBE
        for axis in unwhiten_CC.T
    ]
    rows = torch.stack(moved)
    return torch.as_tensor(rows @ rows.T / rows.shape[1])
