"""Both passes of guidance at once, and pictures decoded as stills.

In: a pipeline that calls its transformer twice in each step, with the prompt, then with the negative prompt
(v = v_neg + g (v_own - v_neg), Ho and Salimans 2022, eq. 6). Out: the same pipeline, whose first call
computes both and whose second only fetches. On a card the two become one call of twice the rows, padded where
the prompts differ in length (masked: the same numbers within rounding). On a CPU a small network gains
nothing from more rows, but a thread for each pass runs on a core of its own, with the very shapes that the
pipeline calls: the same bytes. Knows nothing of plans.

B pictures, L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLQwenImage
from torch import Tensor

from oblik.diffusion import still
from oblik.diffusion.families.family import Text, stack

Way = Literal["two calls", "one call", "two threads"]
Call = Callable[..., Any]
BESIDE = ("hidden_states", "timestep", "guidance")
"""Arguments of the transformer with a row for each picture."""


@contextmanager
def at_once(network: Any, negative: Text | None, way: Way) -> Iterator[None]:
    """Inside, the network's calls come in pairs: own words, then the ``negative`` (one row), at no cost."""
    if negative is None or way == "two calls":
        yield
        return
    plain: Call = network.forward
    hooked = vars(network).get("forward")
    fetched: list[Any] = []
    with ExitStack() as opened:
        pool = None
        if way == "two threads":
            pool = opened.enter_context(ThreadPoolExecutor(2, "pass", torch.set_num_threads, (1,)))

        def forward(*positional: Any, **call: Any) -> Any:
            if fetched:
                return fetched.pop()
            if positional or call.get("controlnet_block_samples") is not None:
                return plain(*positional, **call)  # a ControlNet says something else of each pass
            own, beside = _beside(plain, call, _rows(negative, len(call["hidden_states"])), pool)
            fetched.append(beside)
            return own

        network.forward = forward
        try:
            yield
        finally:
            del network.forward
            if hooked is not None:
                network.forward = hooked


def _beside(
    plain: Call, call: dict[str, Any], other: Text, pool: ThreadPoolExecutor | None
) -> tuple[Any, Any]:
    own = Text(call["encoder_hidden_states"], call.get("encoder_hidden_states_mask"))
    if pool:
        first, second = pool.map(lambda text: _quietly(plain, call | _words(text)), (own, other))
        return first, second
    rows = len(own.states)
    both = stack([text.of(slice(row, row + 1)) for text in (own, other) for row in range(rows)])
    doubled = {name: torch.cat([call[name]] * 2) for name in BESIDE if call.get(name) is not None}
    shapes = list(call["img_shapes"])
    shapes *= 2 if len(shapes) > 1 else 1  # one stands for all rows
    out = plain(**call | doubled | _words(both) | {"img_shapes": shapes})[0]
    return (out[:rows],), (out[rows:],)


def _rows(text: Text, count: int) -> Text:
    """One row ``count`` times, as the pipeline repeats it."""
    return Text(text.states.repeat(count, 1, 1), None if text.mask is None else text.mask.repeat(count, 1))


def _words(text: Text) -> dict[str, Any]:
    mask = None if text.mask is None or bool(text.mask.all()) else text.mask
    return {"encoder_hidden_states": text.states, "encoder_hidden_states_mask": mask}


def _quietly(plain: Call, call: dict[str, Any]) -> Any:
    with torch.no_grad():  # a thread begins with gradients on
        return plain(**call)


@contextmanager
def stills(vae: Any, threads: int) -> Iterator[None]:
    """Inside, Qwen-Image's VAE decodes single frames in 2D, one by one: a third of the work, and a picture's
    bytes do not depend on its batch."""
    if not isinstance(vae, AutoencoderKLQwenImage) or vae.use_tiling:
        yield
        return

    def one(latents_1CHW: Tensor) -> Tensor:
        with torch.no_grad():
            return still.decode(vae, latents_1CHW).clamp(-1, 1)

    def decode(latents_BC1HW: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        frames_1CHW = latents_BC1HW[:, :, 0].split(1)
        if threads == 1:
            return (torch.cat([one(each) for each in frames_1CHW])[:, :, None],)
        with ThreadPoolExecutor(threads, "decode", torch.set_num_threads, (1,)) as pool:
            return (torch.cat(list(pool.map(one, frames_1CHW)))[:, :, None],)

    vae.decode = decode
    try:
        yield
    finally:
        del vae.decode
