"""Prompts: every picture of a person is asked for by the person's trigger token.

In: what somebody typed, the persona's token and descriptors. Out: the prompt that an engine runs.
The sentence is the one that the dataset's captions speak (`oblik.datasets.captions`), so that a
prompt meets what the LoRA learned. Knows nothing of tokenizers, packs or pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from oblik.datasets.captions import caption, style_in
from oblik.errors import InvalidInput, TwoPersonas

LASTING = ("gender", "age", "skin", "hair_style", "hair_color", "beard")
_TRIGGER = re.compile(r"<oblik_[\w-]+>")
_ARTICLE = re.compile(r"\ban?\s+(?=<oblik_[\w-]+>)", re.IGNORECASE)


def subject(trigger: str, noun: str, descriptors: Mapping[str, str]) -> str:
    """The opening of every prompt: "photo of <oblik_sitter> young woman with fair skin and red hair"."""
    lasting = {key: word for key, word in descriptors.items() if key in LASTING}
    return caption(lasting, token=trigger, noun=noun)


def compose(
    text: str,
    *,
    trigger: str,
    noun: str,
    descriptors: Mapping[str, str] | None = None,
    others: Iterable[str] = (),
    style: bool = False,
) -> str:
    """The prompt for ``text``: the token is put in front when it is missing.

    Raises:
        TwoPersonas: the text holds the token of somebody else.
        InvalidInput: it names an art style and ``style`` was not asked for.
    """
    text = " ".join(text.split()).strip(" ,")
    refuse_other_personas(text, trigger, others)
    if not style:
        refuse_styles(text)
    if trigger in text:
        return _ARTICLE.sub("", text)
    opening = subject(trigger, noun, descriptors or {})
    return f"{opening}, {text}" if text else opening


def refuse_other_personas(text: str, trigger: str, others: Iterable[str] = ()) -> None:
    """Raise TwoPersonas when ``text`` names a token that is not ``trigger``."""
    foreign = [token for token in (*_TRIGGER.findall(text), *others) if token != trigger and token in text]
    if foreign:
        raise TwoPersonas(
            f"the prompt holds the token of another persona: {foreign[0]}",
            hint=f"use {trigger}, or choose that persona with: oblik persona use SLUG",
        )


def refuse_styles(text: str) -> None:
    """Raise InvalidInput naming the first art style in ``text``."""
    if found := style_in(text):
        raise InvalidInput(
            f"{found!r} is an art style, and portraits are photographs unless a style is asked for",
            hint="take the words out, or add --style",
        )
