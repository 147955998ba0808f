"""AutoencoderKLQwenImage for one still image, in 2D.

In: a diffusers VAE (its parameters, not a copy). Out: the same function for a single frame. A causal
3D convolution over one frame sees zeros before it, so only the last temporal slice of its kernel
matters; `conv2d` on that slice is a third of the multiplications, and trains several times faster on a CPU.
tests/diffusion/test_still.py holds it to the diffusers forward.

B batch, C channel, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage
from torch import Tensor, nn


def encode(vae: AutoencoderKLQwenImage, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance, each (B, 16, H/8, W/8), of images in [-1, 1]."""
    x = _conv(vae.encoder.conv_in, image_BCHW)
    for layer in vae.encoder.down_blocks:
        x = _residual(layer, x) if hasattr(layer, "conv1") else layer.resample(x)
    x = _conv(vae.encoder.conv_out, F.silu(_norm(vae.encoder.norm_out, _middle(vae.encoder.mid_block, x))))
    mean, logvar = _conv(vae.quant_conv, x).float().chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def decode(vae: AutoencoderKLQwenImage, latents_BCHW: Tensor) -> Tensor:
    """Images (B, 3, 8H, 8W), not clamped."""
    x = _conv(vae.decoder.conv_in, _conv(vae.post_quant_conv, latents_BCHW))
    x = _middle(vae.decoder.mid_block, x)
    for block in vae.decoder.up_blocks:
        for resnet in block.resnets:
            x = _residual(resnet, x)
        if block.upsamplers is not None:
            upsample = block.upsamplers[0].resample[1]
            x = upsample(F.interpolate(x, scale_factor=2.0, mode="nearest-exact"))
    return _conv(vae.decoder.conv_out, F.silu(_norm(vae.decoder.norm_out, x))).float()


def clear_past(vae: AutoencoderKLQwenImage) -> None:
    """Zero every weight that a still image never reaches: they were never trained."""
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
                module.weight[:, :, :-1] = 0.0
        for name, module in vae.named_modules():
            if name.endswith("time_conv"):
                module.weight.zero_()
                module.bias.zero_()


def _conv(conv: nn.Conv3d, x: Tensor) -> Tensor:
    out: Tensor = F.conv2d(x, conv.weight[:, :, -1], conv.bias, padding=int(conv.kernel_size[1]) // 2)
    return out


def _norm(norm: Any, x: Tensor) -> Tensor:
    gamma = norm.gamma.reshape(1, -1, 1, 1)
    scaled: Tensor = F.normalize(x.float(), dim=1).to(x.dtype) * (norm.scale * gamma)
    return scaled


def _residual(block: Any, x: Tensor) -> Tensor:
    skip = x if isinstance(block.conv_shortcut, nn.Identity) else _conv(block.conv_shortcut, x)
    x = _conv(block.conv1, F.silu(_norm(block.norm1, x)))
    return _conv(block.conv2, F.silu(_norm(block.norm2, x))) + skip


def _middle(block: Any, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(resnet, _attention(attention, x))
    return x


def _attention(block: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    qkv = block.to_qkv(_norm(block.norm, x)).reshape(b, 1, 3 * c, h * w).transpose(2, 3)
    q, k, v = qkv.chunk(3, dim=-1)
    out = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(b, c, h, w)
    shifted: Tensor = x + block.proj(out)
    return shifted
