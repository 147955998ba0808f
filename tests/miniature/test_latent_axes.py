"""Turning the latent axes: the round trip stays, channels part."""

from __future__ import annotations

import torch

from oblik.diffusion import still
from oblik.miniature.architecture import new_vae
from oblik.miniature.latent_axes import turn


@torch.no_grad()
def test_channels_become_independent_and_the_picture_stays() -> None:
    torch.manual_seed(0)
    vae = new_vae(0).eval()
    vae.post_quant_conv.weight[:, 8:] = 0.0  # a decoder that hears half of the channels
    images = torch.nn.functional.interpolate(torch.rand(6, 3, 12, 12), 64, mode="bilinear") * 2 - 1
    before = still.decode(vae, still.encode(vae, images)[0])
    weights = turn(vae, images)
    latents, logvar = still.encode(vae, images)
    assert torch.allclose(still.decode(vae, latents), before, atol=1e-3)
    assert (weights[:-1] >= weights[1:]).all()
    deviations = latents.std((0, 2, 3))
    speaking = deviations > 0
    assert speaking.sum() <= 8
    assert torch.allclose(deviations[speaking], torch.ones(int(speaking.sum())), atol=0.05)
    rows = latents[:, speaking].permute(1, 0, 2, 3).flatten(1)
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 0.05
    assert logvar.std() < 1e-4
