"""Identity tokens: a word that stands for a face, read from photos by the pack's own projector.

In: a pipeline whose text encoder is there, a plan, face vectors. Out: text states for the prompt and for the
negative prompt. Knows nothing of masks and steps.

Three prompts differ in one token: the plan's own has the trigger, ``stranger`` an article in its place,
``named`` the word; without a trigger the plan's own is the stranger's. The strength w is a blend of *text
states*, s = (1 - w) s_own + w s_named, token by token. Blending or scaling the word's *embedding* is no
strength: the encoder normalises its inputs (RMSNorm, Zhang and Sennrich 2019), and a projected row is many
times longer than a word's, so 0.6 of it says the same as all of it.

The stranger takes the place of the negative prompt too: guidance v = v_stranger + g (v_s - v_stranger)
(Ho and Salimans 2022, eq. 6) then raises what tells this person from anybody, and nothing else.

N photos, D face vector, L text tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AddedToken

from oblik.datasets.captions import without_token
from oblik.diffusion import tokens
from oblik.diffusion.identity import FILE, read_name
from oblik.errors import BackendUnavailable
from oblik.generation.plan import Plan
from oblik.packs.manifest import OpenPack
from oblik.training.adapter import WORD

_ARTICLE = re.compile(r"\ban?\b", re.IGNORECASE)
_OPENING = "photo of a person, "


class IdentityTokens:
    """An `oblik.generation.adapters.Adapter`."""

    @torch.no_grad()
    def words(
        self, pipeline: Any, plan: Plan, vectors_ND: NDArray[np.float32], *, pack: OpenPack, stack: str
    ) -> dict[str, Any]:
        row_E = read_name(pack.find(str(FILE)), vectors_ND, stack)
        if row_E is None:
            raise BackendUnavailable(
                f"the identity projector of {pack.manifest.name} does not know the face vectors of {stack!r}",
                hint="oblik --face-stack pack generate ...",
            )
        own, stranger, named = three_prompts(plan.prompt, _trigger(pipeline, plan))
        own_1LD, stranger_1LD = _states(pipeline, own), _states(pipeline, stranger)
        with _knowing(pipeline, row_E):
            named_1LD = _states(pipeline, named)
        if not own_1LD.shape == stranger_1LD.shape == named_1LD.shape:
            raise BackendUnavailable(
                f"this tokenizer has no single token where the reference's word would stand: {stranger!r}",
                hint='begin the prompt with "photo of a"',
            )
        states_1LD = torch.lerp(own_1LD, named_1LD, plan.references[0].weight)
        whole_1L = torch.ones(states_1LD.shape[:2], dtype=torch.long, device=states_1LD.device)
        words = {"prompt_embeds": states_1LD, "prompt_embeds_mask": whole_1L}
        if plan.guidance > 1:
            words |= {"negative_prompt_embeds": stranger_1LD, "negative_prompt_embeds_mask": whole_1L}
        return words

    def drawing(self, pipeline: Any, plan: Plan) -> AbstractContextManager[None]:
        """The networks know text states already."""
        return nullcontext()


def three_prompts(prompt: str, trigger: str | None) -> tuple[str, str, str]:
    """The prompt, about a stranger, and with `WORD` in place of the trigger or else of the first article.

    A prompt with neither gets an opening that has an article.
    """
    if trigger and trigger in prompt:
        return prompt, without_token(prompt, trigger), prompt.replace(trigger, WORD)
    if not _ARTICLE.search(prompt):
        prompt = _OPENING + prompt
    return prompt, prompt, _ARTICLE.sub(WORD, prompt, count=1)


def _trigger(pipeline: Any, plan: Plan) -> str | None:
    """The added token of the pipeline's tokenizer that stands in the prompt."""
    added = pipeline.tokenizer.get_added_vocab()
    return next((token for token in added if token in plan.prompt), None)


def _states(pipeline: Any, text: str) -> Tensor:
    states_1LD: Tensor = pipeline.encode_prompt(text, device=pipeline.text_encoder.device)[0]
    return states_1LD


@contextmanager
def _knowing(pipeline: Any, row_E: Tensor) -> Iterator[None]:
    """Inside, the pipeline's tokenizer and text encoder know `WORD`; both are as before afterwards."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    pipeline.tokenizer = deepcopy(tokenizer)
    pipeline.tokenizer.add_tokens([AddedToken(WORD, lstrip=True, normalized=False)])
    token_id = pipeline.tokenizer.convert_tokens_to_ids(WORD)
    tokens.make_room(encoder, token_id)
    try:
        with tokens.replaced(encoder, token_id, row_E.to(encoder.device)):
            yield
    finally:
        pipeline.tokenizer = tokenizer
