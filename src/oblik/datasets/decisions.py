"""What the user decided about photos: ``datasets/decisions.toml``.

In: a photo's hash, its name, a verdict or a caption. Out: the same, read back: the last word about each
photo. The file is the user's own: no version holds it, every build reads it. Every word is kept, newest
last, so that the last command can be taken back. Knows nothing of pictures, and not whether a photo can be
kept at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import InvalidInput, NotFound
from oblik.paths import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "decisions.toml"
KEEP, DROP = "keep", "drop"


class Word(BaseModel):
    """One decision. ``step`` counts commands: what was said together is taken back together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    source: str
    verdict: Literal["keep", "drop"]
    reason: str = ""

    def sentence(self) -> str:
        """For the report."""
        what = "kept by you" if self.verdict == KEEP else "dropped by you"
        return f"{what}: {self.reason}" if self.reason else what


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    photos: dict[str, list[Word]] = Field(default_factory=dict)
    captions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Decisions:
    """What holds now, by source hash."""

    words: Mapping[str, Word]
    captions: Mapping[str, str]

    def fingerprint(self) -> list[list[str]]:
        """What changes a build: the verdicts with their reasons (captions are counted apart)."""
        return sorted([sha256, word.verdict, word.reason] for sha256, word in self.words.items())


def read_decisions(datasets: Path) -> Decisions:
    """The decisions in the folder ``datasets``; none when there is no file. Raises InvalidInput."""
    page = _read(datasets / FILE_NAME)
    return Decisions({sha256: words[-1] for sha256, words in page.photos.items() if words}, page.captions)


def decide_photos(
    datasets: Path, named: Mapping[str, str], verdict: Literal["keep", "drop"], reason: str = ""
) -> None:
    """Write one verdict about the photos ``named`` (source hash -> name)."""
    page = _read(datasets / FILE_NAME)
    step = 1 + max((word.step for words in page.photos.values() for word in words), default=0)
    for sha256, source in named.items():
        word = Word(step=step, source=source, verdict=verdict, reason=" ".join(reason.split()))
        page.photos.setdefault(sha256, []).append(word)
    _write(datasets / FILE_NAME, page)


def undo_last(datasets: Path) -> list[str]:
    """Take the last command back; the names it spoke of. Raises NotFound when nothing was decided."""
    page = _read(datasets / FILE_NAME)
    last = max((word.step for words in page.photos.values() for word in words), default=0)
    taken = sorted(word.source for words in page.photos.values() for word in words if word.step == last)
    if not taken:
        raise NotFound("nothing was decided about this persona's photos", hint="oblik dataset show")
    page.photos = {
        sha256: left
        for sha256, words in page.photos.items()
        if (left := [word for word in words if word.step != last])
    }
    _write(datasets / FILE_NAME, page)
    return taken


def forget(datasets: Path, hashes: Iterable[str]) -> list[str]:
    """Take back everything that was decided about these photos; the names that were known."""
    page = _read(datasets / FILE_NAME)
    gone = [page.photos.pop(sha256) for sha256 in hashes if sha256 in page.photos]
    if gone:
        _write(datasets / FILE_NAME, page)
    return sorted(words[-1].source for words in gone if words)


def write_captions(datasets: Path, captions: Mapping[str, str]) -> None:
    """Make ``captions`` (source hash -> text) the user's own; others that were written before stay."""
    page = _read(datasets / FILE_NAME)
    page.captions |= captions
    _write(datasets / FILE_NAME, page)


def _read(file: Path) -> _Page:
    if not file.is_file():
        return _Page()
    try:
        return _Page.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError, UnicodeDecodeError) as broken:
        raise InvalidInput(f"{file} cannot be read: {broken}", hint=f"mend {file} by hand") from broken


def _write(file: Path, page: _Page) -> None:
    atomic_write(file, tomli_w.dumps(page.model_dump(exclude_defaults=True)))
