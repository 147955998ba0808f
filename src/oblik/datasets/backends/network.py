"""Captions by a pack's caption network: a small ONNX network that reads plain words off a picture.

In: a pack's folder with ``words.onnx`` and ``words.json`` (size, questions with their answers, how sure it
must be), and pictures. Out: the words of those answers that it is sure of. It is asked only what changes from
photo to photo, never what belongs to the person. Knows nothing of tokens and personas.

``image`` (1, 3, S, S) RGB in [-1, 1] -> ``logits`` (1, Q), the questions' answers side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from oblik.datasets.captions import phrases
from oblik.datasets.sources import Picture
from oblik.errors import PackBroken
from oblik.faces.backends.sessions import REPAIR, open_session


class WordsFile(BaseModel):
    """``words.json``. The answer ``none`` says nothing; what is less probable than ``sure`` is not said."""

    model_config = ConfigDict(extra="forbid")

    size_px: int
    sure: float
    questions: dict[str, tuple[str, ...]]


class CaptionNetwork:
    """The user's own words where there are some, else what the network sees."""

    name = "network"

    def __init__(self, folder: Path) -> None:
        try:
            self.file = WordsFile.model_validate_json((folder / "words.json").read_bytes())
        except (OSError, ValidationError) as broken:
            raise PackBroken(f"{folder / 'words.json'}: {broken}", hint=REPAIR) from broken
        self._session = open_session(folder / "words.onnx", threads=1)

    def describe(self, picture: Picture) -> str:
        """Phrases separated by commas, as captions put them."""
        return picture.words or ", ".join(phrases(self.read(picture.image)))

    def read(self, image: Image.Image) -> dict[str, str]:
        """Descriptors that the network is sure of."""
        side = self.file.size_px
        pixels_HW3 = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX), np.float32)
        inputs = (pixels_HW3 / 127.5 - 1).transpose(2, 0, 1)[None]
        logits_Q = self._session.run(["logits"], {"image": inputs})[0][0]
        found: dict[str, str] = {}
        worn: list[str] = []
        start = 0
        for question, choices in self.file.questions.items():
            part = logits_Q[start : start + len(choices)]
            start += len(choices)
            odds = np.exp(part - part.max())
            best = int(odds.argmax())
            if choices[best] == "none" or odds[best] / odds.sum() < self.file.sure:
                continue
            if "none" in choices:
                worn.append(choices[best])
            else:
                found[question] = choices[best]
        return {**found, "accessories": ", ".join(worn)}
