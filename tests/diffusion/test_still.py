"""The 2D twin computes what diffusers computes, for one frame."""

from __future__ import annotations

import torch

from oblik.diffusion import still
from oblik.miniature.architecture import new_vae


def test_the_twin_equals_the_video_vae_on_one_frame() -> None:
    vae = new_vae(0).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(image[:, :, None]).latent_dist
        mean, logvar = still.encode(vae, image)
        decoded = vae.decode(mean[:, :, None]).sample[:, :, 0]
        assert torch.allclose(whole.mean[:, :, 0], mean, atol=1e-5)
        assert torch.allclose(whole.logvar[:, :, 0], logvar, atol=1e-5)
        assert torch.allclose(decoded, still.decode(vae, mean).clamp(-1, 1), atol=1e-4)


@torch.no_grad()
def test_only_the_last_slice_in_time_is_read() -> None:
    vae = new_vae(0).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    before, _ = still.encode(vae, image)
    vae.encoder.conv_in.weight[:, :, 0] = float("nan")
    assert torch.equal(still.encode(vae, image)[0], before)


def test_clearing_the_past_changes_no_still_image() -> None:
    vae = new_vae(0).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        before = vae.encode(image[:, :, None]).latent_dist.mean
        still.clear_past(vae)
        assert torch.allclose(before, vae.encode(image[:, :, None]).latent_dist.mean, atol=1e-5)
    unused = [m.weight for n, m in vae.named_modules() if n.endswith("time_conv")]
    assert unused
    assert all(not weight.any() for weight in unused)
