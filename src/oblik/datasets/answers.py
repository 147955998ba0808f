"""What a vision-language model is asked about a photo, and what of its answer a caption may hold.

In: the text that a model answered. Out: plain descriptors separated by commas: clothing, what is worn, scene,
light, expression. Who the person is, what the face is made of and in what style a picture is are left out;
so is everything that is not a short phrase. Knows nothing of models.
"""

from __future__ import annotations

import re

from oblik.datasets.captions import IDENTITY_WORDS, STYLE_WORDS, style_in, words_of

QUESTION = (
    "Describe this photo in at most eight short phrases separated by commas: clothing, what is worn on the "
    "head or the face, expression, place and background, light. Do not describe the face, the hair, the age "
    "or who it is. No sentences, no opinion."
)
LONGEST_WORDS, MOST_PHRASES, SHORTEST_CHARACTERS = 7, 8, 3
ABOUT_WHO = IDENTITY_WORDS | frozenset(
    "face faces nose nosed eye eyes eyed lip lips mouth chin jaw cheek cheeks forehead ear ears skin "
    "complexion hair haired hairstyle beard moustache bald age aged young old elderly teenage male "
    "female man woman men women boy girl person someone somebody celebrity famous looks resembles "
    "ethnicity asian african european caucasian hispanic latina latino black-haired blonde brunette".split()
)
ABOUT_PICTURE = STYLE_WORDS | frozenset(
    "style aesthetic artistic stunning masterpiece cinematic photo photograph photography portrait image "
    "picture quality resolution hd 4k 8k bokeh vibe elegant lovely perfect".split()
)
LABEL = re.compile(
    r"^(?:clothing|clothes|expression|place|background|scene|setting|light|lighting|accessories|headwear)\s*[:-]\s*",
    re.IGNORECASE,
)
EMPTY = frozenset("none no nothing unknown n/a not visible unclear neutral".split())


def descriptors_from(answer: str) -> str:
    """The phrases of an answer that a caption may hold, without repetitions, in its order."""
    kept: list[str] = []
    for phrase in re.split(r"[,;.\n•]+", answer):
        plain = LABEL.sub("", " ".join(phrase.split()).strip("-*\"'` ")).lower()
        plain = re.sub(r"^(?:and|with|a photo of|the person is|he is|she is|they are)\s+", "", plain)
        plain = re.sub(r"^(?:a|an|the)\s+", "", plain)
        if plain not in kept and _plain(plain):
            kept.append(plain)
    return ", ".join(kept[:MOST_PHRASES])


def _plain(phrase: str) -> bool:
    words = words_of(phrase)
    if not words or len(words) > LONGEST_WORDS or len(phrase) < SHORTEST_CHARACTERS:
        return False
    if not re.fullmatch(r"[a-z0-9][a-z0-9 '\-]*", phrase) or set(words) <= EMPTY:
        return False
    return not (set(words) & (ABOUT_WHO | ABOUT_PICTURE) or style_in(phrase))
