"""Joint attention with rotary embedding in real arithmetic, for processors without a fused attention.

In: a QwenImageTransformer2DModel. Out: the same model, which computes what QwenDoubleStreamAttnProcessor2_0
computes without complex numbers (slow on a CPU, and nothing the compiler can fuse). Equal to it within
rounding: tests/diffusion/test_real_rope.py. Knows nothing of training.

B batch, S tokens, H heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def use_real_rope(transformer: Any) -> None:
    """Change the transformer's attention in place; its weights and their names stay."""
    if not isinstance(transformer.pos_embed, RealRope):
        transformer.pos_embed = RealRope(transformer.pos_embed)
        transformer.set_attn_processor(RealRopeProcessor())


class RealRopeProcessor:
    """Drop-in attention processor."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        if attention_mask is not None or image_rotary_emb is None:
            raise ValueError("RealRopeProcessor takes rotary embeddings and the text's mask, no other")
        text, image, heads = encoder_hidden_states, hidden_states, (attn.heads, -1)
        q_text = attn.norm_added_q(attn.add_q_proj(text).unflatten(-1, heads))
        k_text = attn.norm_added_k(attn.add_k_proj(text).unflatten(-1, heads))
        q_image = attn.norm_q(attn.to_q(image).unflatten(-1, heads))
        k_image = attn.norm_k(attn.to_k(image).unflatten(-1, heads))
        q_BSHD, k_BSHD = torch.cat([q_text, q_image], 1), torch.cat([k_text, k_image], 1)
        v_BSHD = torch.cat([attn.add_v_proj(text), attn.to_v(image)], 1).unflatten(-1, heads)
        cos, sin = image_rotary_emb
        q_BSHD, k_BSHD = rotate(q_BSHD, cos, sin), rotate(k_BSHD, cos, sin)
        q, k, v = (x.transpose(1, 2) for x in (q_BSHD, k_BSHD, v_BSHD))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        if encoder_hidden_states_mask is not None:
            padding = ~encoder_hidden_states_mask.bool()[:, None, None, :]
            scores[..., : text.shape[1]] = scores[..., : text.shape[1]].masked_fill(padding, float("-inf"))
        out = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        text_out, image_out = out[:, : text.shape[1]], out[:, text.shape[1] :]
        return attn.to_out[0](image_out), attn.to_add_out(text_out)


class RealRope(torch.nn.Module):
    """Wraps QwenEmbedRope: cosines and sines (S, D) of text then image tokens, interleaved."""

    def __init__(self, rope: torch.nn.Module) -> None:
        super().__init__()
        self.rope = rope
        self.known: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, shapes: Any, max_txt_seq_len: int, device: torch.device) -> tuple[Tensor, Tensor]:
        key = (str(shapes), int(max_txt_seq_len))
        if key not in self.known:
            image, text = self.rope(shapes, max_txt_seq_len=max_txt_seq_len, device=device)
            angles = torch.cat([text, image])
            cos, sin = angles.real.repeat_interleave(2, -1), angles.imag.repeat_interleave(2, -1)
            self.known[key] = (cos.contiguous(), sin.contiguous())
        return self.known[key]


def rotate(x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, eq. 34) on interleaved pairs."""
    even, odd = x_BSHD.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], -1).flatten(-2)
    return (x_BSHD.float() * cos_SD[:, None] + turned * sin_SD[:, None]).to(x_BSHD.dtype)
