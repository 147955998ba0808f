"""The blocks of a frozen Qwen-Image transformer, for training a LoRA on a CPU.

In: a QwenImageTransformer2DModel. Out: the same model, which computes what diffusers' blocks compute (tests/
diffusion/test_frozen_blocks.py) in fewer passes over its activations, and keeps fewer of them for the
gradient: weights that never learn need none, and an activation that costs little is computed again. Knows
nothing of LoRA, but for `LeanLora` in the MLP.

B batch, S tokens (text, then image), H heads, D head size, C width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock
from torch import Tensor

from oblik.diffusion.lean_lora import LeanLora


def use_frozen_blocks(transformer: Any) -> None:
    """Change the transformer in place; its weights and their names stay. Its own weights get no gradients."""
    for block in transformer.transformer_blocks:
        block.__class__ = FrozenBlock
    transformer.set_attn_processor(FrozenAttention())


class FrozenBlock(QwenImageTransformerBlock):  # type: ignore[misc]
    """Modulation, gate and residual in one pass each."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        modulate_index: Any = None,
    ) -> tuple[Tensor, Tensor]:
        if modulate_index is not None or self.zero_cond_t:
            raise ValueError("FrozenBlock takes one time for each row")
        image, text = hidden_states, encoder_hidden_states
        image_mod = self.img_mod(temb)[:, None].chunk(6, -1)  # shift, scale, gate; of attention, of MLP
        text_mod = self.txt_mod(temb)[:, None].chunk(6, -1)
        image_out, text_out = self.attn(
            hidden_states=_modulated(self.img_norm1(image), image_mod[:2]),
            encoder_hidden_states=_modulated(self.txt_norm1(text), text_mod[:2]),
            encoder_hidden_states_mask=encoder_hidden_states_mask,
            image_rotary_emb=image_rotary_emb,
            **(joint_attention_kwargs or {}),
        )
        image = torch.addcmul(image, image_mod[2], image_out)
        text = torch.addcmul(text, text_mod[2], text_out)
        image_out = _mlp(self.img_mlp, _modulated(self.img_norm2(image), image_mod[3:5]))
        text_out = _mlp(self.txt_mlp, _modulated(self.txt_norm2(text), text_mod[3:5]))
        return torch.addcmul(text, text_mod[5], text_out), torch.addcmul(image, image_mod[5], image_out)


def _modulated(x: Tensor, shift_scale: tuple[Tensor, ...]) -> Tensor:
    shift, scale = shift_scale
    return torch.addcmul(shift, x, 1 + scale)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    bent, _, last = mlp.net
    before = bent.proj(x)
    lean = isinstance(last, LeanLora)
    out: Tensor = last(before, gelu=True) if lean else last(F.gelu(before, approximate="tanh"))
    return out


class FrozenAttention:
    """Drop-in attention processor: joint attention by matrix products."""

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
            raise ValueError("FrozenAttention takes rotary embeddings and the text's mask, no other")
        text, image = encoder_hidden_states, hidden_states
        turn_S1C = torch.cat([image_rotary_emb[1], image_rotary_emb[0]])[:, None]
        q = _joined(attn.add_q_proj(text), attn.to_q(image), attn.heads)
        k = _joined(attn.add_k_proj(text), attn.to_k(image), attn.heads)
        v = _joined(attn.add_v_proj(text), attn.to_v(image), attn.heads)
        parts = (text.shape[1], image.shape[1])
        of_q = _weights(attn.norm_added_q, attn.norm_q, parts) * q.shape[-1] ** -0.5
        of_k = _weights(attn.norm_added_k, attn.norm_k, parts)
        q = _norm_turned(q, of_q, turn_S1C, attn.norm_q.eps)
        k = _norm_turned(k, of_k, turn_S1C, attn.norm_k.eps)
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
        scores = q @ k.transpose(1, 2)
        if encoder_hidden_states_mask is not None:
            of_text = scores.unflatten(0, (-1, attn.heads))[..., : text.shape[1]]
            of_text.masked_fill_(~encoder_hidden_states_mask.bool()[:, None, None, :], float("-inf"))
        out = (scores.softmax(-1) @ v).unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)
        text_out, image_out = out.split(parts, 1)
        return attn.to_out[0](image_out), attn.to_add_out(text_out)


def _joined(text: Tensor, image: Tensor, heads: int) -> Tensor:
    both = torch.cat([text, image], 1)
    return both.view(*both.shape[:2], heads, -1)


def _weights(text: Any, image: Any, parts: tuple[int, int]) -> Tensor:
    """The weights of a norm of text and one of image, (S, 1, D)."""
    return torch.cat([text.weight.expand(parts[0], -1), image.weight.expand(parts[1], -1)])[:, None]


def _norm_turned(x: Tensor, weight_S1D: Tensor, turn_S1C: Tensor, eps: float) -> Tensor:
    out: Tensor = _NormTurned.apply(x, weight_S1D, turn_S1C, eps)  # type: ignore[no-untyped-call]
    return out


class _NormTurned(torch.autograd.Function):
    """RMS norm, then rotary position embedding (Su et al. 2021, eq. 34, as complex numbers).

    y = R(w n), n = x / rms(x); of x (B, S, H, D) only x and 1 / rms are kept.
    dx = (u - n mean(n u)) / rms, u = w R^T(dy).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_S1D: Tensor, turn_S1C: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_S1D, turn_S1C, inverse)
        return _turned((wide * inverse).mul_(weight_S1D), turn_S1C).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_S1D, turn_S1C, inverse = ctx.saved_tensors
        wide, u = x.float(), _turned(grad.float(), turn_S1C.conj()).mul_(weight_S1D)
        share = (u * wide).mean(-1, keepdim=True).mul_(inverse.pow(3))
        return u.mul_(inverse).addcmul_(wide, share, value=-1).to(x.dtype), None, None, None


def _turned(x: Tensor, turn_S1C: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn_S1C).flatten(-2)
