"""The last run without references, kept so that what builds on it need not make it again.

In: ways to make pictures, and what a run is known by. Out: the same ways; one that would make the kept run
over again gives its pictures and goes through its latents step by step, to the same bytes. One run is kept at
a time, in RAM and bounded. Knows nothing of what a run is known by.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oblik.generation.backends.references import EachStep, Paint, Pixels_BHW3

MOST_BYTES = 512 << 20
"""At 768 px a picture takes 7 MB, and its latents of 30 steps 9 (in bfloat16)."""


class FirstRuns:
    """The kept run, by the seeds of its batches."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes, self._known = most_bytes, 0, None
        self._kept: dict[tuple[int, ...], tuple[list[Tensor], Pixels_BHW3]] = {}

    def keeping(self, paint: Paint, seeds: tuple[int, ...], known_by: Any) -> Paint:
        """``paint``, whose run is kept as long as it is no larger than allowed."""
        self._only(known_by)

        def kept(words: dict[str, Any], each_step: EachStep) -> Pixels_BHW3:
            path: list[Tensor] = []

            def each(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                tensors = each_step(pipeline, step, time, tensors)
                if self._takes(tensors["latents"].nbytes):
                    path.append(tensors["latents"].detach().to("cpu", copy=True))
                return tensors

            pixels_BHW3 = paint(words, each)
            if self._takes(pixels_BHW3.nbytes):
                self._kept[seeds] = path, pixels_BHW3
            return pixels_BHW3

        return kept

    def giving(self, paint: Paint, seeds: tuple[int, ...], known_by: Any, words: dict[str, Any]) -> Paint:
        """``paint``, which does not make the kept run again where it is asked for with the same ``words``;
        where it has to be made, it is kept in turn."""
        keeping = self.keeping(paint, seeds, known_by)

        def given(asked: dict[str, Any], each_step: EachStep) -> Pixels_BHW3:
            if asked is not words:
                return paint(asked, each_step)
            if seeds not in self._kept:
                return keeping(asked, each_step)
            path, pixels_BHW3 = self._kept[seeds]
            for step, latents in enumerate(path):
                each_step(None, step, None, {"latents": latents})
            return pixels_BHW3

        return given

    def _only(self, known_by: Any) -> None:
        if known_by != self._known:
            self._known, self._kept, self._bytes = known_by, {}, 0

    def _takes(self, more_bytes: int) -> bool:
        """Whether there is room; where there is none, what was kept goes."""
        self._bytes += more_bytes
        if self._bytes > self._most:
            self._kept = {}
        return self._bytes <= self._most
