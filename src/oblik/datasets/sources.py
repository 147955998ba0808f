"""Where the words of a caption come from.

In: a `Picture`: the cut-out photo, what was measured, what its owner wrote beside it. Out: plain words that
`caption_of` puts behind the token. A source sees no token and no name. The Protocol mentions no tensor
library; beside it stands the table of sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from oblik.datasets.captions import caption, check_caption, refuse_style_words, refuse_tokens
from oblik.datasets.words import descriptors_in
from oblik.packs.manifest import OpenPack
from oblik.personas.persona import Persona
from oblik.registry import load


@dataclass(frozen=True)
class Picture:
    """What a source may look at. ``words`` is what the user wrote beside the photo, empty when nothing."""

    image: Image.Image
    attributes: Mapping[str, str] = field(default_factory=dict)
    words: str = ""


class CaptionSource(Protocol):
    """What describes a picture. ``name`` goes into the manifest."""

    name: str

    def describe(self, picture: Picture) -> str:
        """Plain words separated by commas ("red clothes, in a park"); empty when there is nothing to add."""
        ...


class Measured:
    """Nothing beyond the persona's descriptors and what was measured."""

    name = "measured"

    def describe(self, picture: Picture) -> str:
        return ""


class Beside:
    """What the user wrote: ``captions.csv`` or the .txt beside the photo."""

    name = "words"

    def describe(self, picture: Picture) -> str:
        return picture.words


SOURCES = {
    "words": "oblik.datasets.sources:Beside",
    "measured": "oblik.datasets.sources:Measured",
    "network": "oblik.datasets.backends.network:CaptionNetwork",
    "model": "oblik.datasets.backends.vlm:VisionLanguage",
}


def open_source(name: str, **options: Any) -> CaptionSource:
    """A caption source by name (``model`` and ``network`` take ``folder=``, ``model`` also ``device=``)."""
    source: CaptionSource = load("caption source", name, SOURCES)(**options)
    return source


def usual_source(pack: OpenPack) -> CaptionSource:
    """The pack's caption network where it has one, else what the user wrote."""
    if pack.words_folder.is_dir():
        return open_source("network", folder=pack.words_folder)
    return open_source("words")


@dataclass(frozen=True)
class Captioned:
    """A caption and what it says in the words of coverage."""

    caption: str
    attributes: dict[str, str]


def caption_of(
    persona: Persona, picture: Picture, source: CaptionSource, others: Sequence[str] = ()
) -> Captioned:
    """The caption of one picture.

    Words of the user that hold the token are the whole caption, as they stand; other words join what was
    measured. ``others`` are the triggers of the other personas.

    Raises InvalidInput for words that a caption must not have.
    """
    told = source.describe(picture)
    said, rest = descriptors_in(told.replace(persona.trigger, " "))
    said.pop("framing", None)
    attributes = {**picture.attributes, **said}
    if persona.trigger in told:
        return Captioned(check_caption(told, persona.trigger, others), attributes)
    refuse_style_words(told)
    refuse_tokens(told, others)
    if rest:
        attributes["words"] = rest
    line = caption({**persona.descriptors, **attributes}, token=persona.trigger, noun=persona.class_noun)
    return Captioned(", ".join(part for part in (line, rest) if part), attributes)
