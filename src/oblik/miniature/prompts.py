"""Captions for pretraining, cut to a few exact lengths.

In: descriptors of every image, the tokenizer. Out: token ids by length, so that batches need neither
padding nor masks. Half of the captions carry a *name*: a placeholder token whose embedding the trainer
replaces by a projection of the person's face embedding. That is how a base model comes to know that a
rare word can stand for a face, which is what a trigger token is later taught.

L length after the template's head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import Qwen2Tokenizer

from oblik.datasets.captions import caption
from oblik.miniature.architecture import VOCABULARY_ROWS
from oblik.miniature.vocabulary import HEAD_IDS, template

LENGTHS = (10, 14, 18, 22, 26, 30)
NAME = "<name>"
NAME_ID = VOCABULARY_ROWS - 1
TRIES = 12
KEEP_OF_STRANGER = {
    "age": 0.75, "skin": 0.7, "hair": 0.8, "beard": 0.8, "accessories": 1.0, "clothing": 0.5,
    "expression": 0.6, "view": 0.9, "framing": 0.6, "scene": 0.7, "light": 0.5,
}  # fmt: skip
"""How often a caption says each thing. The view is nearly always said: a head that may be turned either way
is learned as a mixture of both."""
KEEP_OF_ANYBODY = {**KEEP_OF_STRANGER, "age": 0.0, "skin": 0.0, "hair": 0.0, "beard": 0.0}
"""Nothing that belongs to the person: who it is must be seen elsewhere."""
KEEP_OF_NAMED = {**KEEP_OF_STRANGER, "age": 0.3, "skin": 0.15, "hair": 0.25, "beard": 0.3}


@dataclass(frozen=True)
class Prompts:
    """``ids[L]`` (M, 34 + L) and ``rows[L]`` (M,): which image each caption describes."""

    ids: dict[int, NDArray[np.int64]]
    rows: dict[int, NDArray[np.int64]]
    empty: NDArray[np.int64]


def write_prompts(
    descriptors: list[dict[str, str]],
    landmarks_N52: NDArray[np.float32],
    tokenizer: Qwen2Tokenizer,
    seed: int,
    strangers: Mapping[str, float] = KEEP_OF_STRANGER,
) -> Prompts:
    """Up to one caption with and one without a name for every portrait, each of a length in `LENGTHS`.

    Of the three-quarter views only those are described in which the nose points to the right of the picture:
    captions do not say which way a head is turned, and both ways at once are learned as a mixture.
    """
    rng = np.random.default_rng([seed, 5])
    texts, rows = [], []
    for row, (words, (eye, other_eye, nose, *_)) in enumerate(zip(descriptors, landmarks_N52, strict=True)):
        leftward = words["view"] == "three-quarter" and nose[0] < (eye[0] + other_eye[0]) / 2
        if leftward or not is_portrait(words):
            continue
        for named in (False, True):
            for _ in range(TRIES):
                texts.append(_caption(words, rng, KEEP_OF_NAMED if named else strangers, named))
                rows.append(row)
    encoded = _encode(tokenizer, texts)
    ids: dict[int, list[NDArray[np.int64]]] = {length: [] for length in LENGTHS}
    kept: dict[int, list[int]] = {length: [] for length in LENGTHS}
    for start in range(0, len(texts), TRIES):
        for candidate in encoded[start : start + TRIES]:
            length = len(candidate) - HEAD_IDS
            if length in ids:
                ids[length].append(np.array(candidate))
                kept[length].append(rows[start])
                break
    return Prompts(
        ids={length: np.stack(found) for length, found in ids.items() if found},
        rows={length: np.array(found) for length, found in kept.items() if found},
        empty=np.array(_encode(tokenizer, [" "])[0]),
    )


def is_portrait(words: dict[str, str]) -> bool:
    """Whether the transformer learns from this image: near enough, not in profile, the face uncovered.

    A narrower world is learned sooner; the face networks see all of it.
    """
    covered = {"mask", "hand"} & set(words["accessories"].split(", "))
    return not covered and words["view"] != "profile" and words["framing"] != "half length"


def all_phrases(descriptors: list[dict[str, str]]) -> list[str]:
    """Whole captions of every image: what the vocabulary is trained on."""
    return [caption(words) for words in descriptors]


def _caption(
    words: dict[str, str], rng: np.random.Generator, shares: Mapping[str, float], named: bool
) -> str:
    keep = {key: bool(rng.random() < share) for key, share in shares.items()}
    keep["hair_color"] = keep["hair_style"] = keep["hair"]
    chosen = {key: value for key, value in words.items() if keep.get(key, key == "gender")}
    return caption(chosen, token=NAME if named else None)


def _encode(tokenizer: Qwen2Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids inside the template. `NAME` becomes `NAME_ID` and takes the space before it, as a trigger does."""
    before, after = template().split("{}")
    head, tail = (tokenizer(part)["input_ids"] for part in (before, after))
    pieces = [text.split(f" {NAME}") for text in texts]
    flat = tokenizer([part for pair in pieces for part in pair])["input_ids"]
    encoded, at = [], 0
    for pair in pieces:
        body = list(flat[at])
        if len(pair) == 2:
            body += [NAME_ID, *flat[at + 1]]
        at += len(pair)
        encoded.append([*head, *body, *tail])
    return encoded
