"""Pictures beside the noise: how Qwen-Image-Edit shows a transformer a frame and references.

In: a QwenImageTransformer2DModel, packed latents. Out: inside the block every call of it sees those latents
after the noisy ones, each with a frame number of its own in the rotary embedding, and answers for the noisy
ones alone (Wu et al. 2025, section 4.2; QwenImageEditPlusPipeline does the same in its loop, where the size
of what is shown is fixed). So every pipeline of the family can be shown pictures. Knows nothing of prompts.

B batch, T tokens, C packed channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Shown(NamedTuple):
    """One picture: its packed latents (1, T, C), and rows and columns of tokens."""

    latents: Tensor
    rows: int
    columns: int


@contextmanager
def beside(
    transformer: Any, shown: Sequence[Shown], to_negative: Sequence[Shown] | None = None
) -> Iterator[None]:
    """Inside, ``transformer`` sees the pictures; afterwards it is as before.

    With ``to_negative`` its calls come in pairs, the prompt's and the negative prompt's, and the second sees
    these: guidance then raises what the others say as well (Brooks, Holynski and Efros 2023, section 3.2).
    """
    tokens: list[int] = []
    turns = cycle((shown, shown if to_negative is None else to_negative))

    def before(_module: Any, args: Any, call: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        noisy = call["hidden_states"]
        tokens.append(noisy.shape[1])
        pictures = next(turns)
        seen = [picture.latents.to(noisy).expand(len(noisy), -1, -1) for picture in pictures]
        shapes = [(1, picture.rows, picture.columns) for picture in pictures]
        if told := call.get("controlnet_block_samples"):  # of the noise alone, nothing that is shown
            beyond = (0, 0, 0, sum(picture.shape[1] for picture in seen))
            call = call | {"controlnet_block_samples": [pad(each, beyond) for each in told]}
        call = call | {
            "hidden_states": torch.cat([noisy, *seen], 1),
            "img_shapes": [[*own, *shapes] for own in call["img_shapes"]],
        }
        return args, call

    def after(_module: Any, _args: Any, _call: Any, out: Any) -> Any:
        count = tokens.pop()
        return (out[0][:, :count], *out[1:])

    hooks = [
        transformer.register_forward_pre_hook(before, with_kwargs=True),
        transformer.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
