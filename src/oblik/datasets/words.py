"""What the user says about a photo, in the words of captions.

In: ``captions.csv`` (file, words) in the photo folder, or a ``.txt`` beside a photo. Out: for a photo, the
descriptors that its words name ("red clothes", "in a park", "smiling", "glasses", "side light") and what is
left over, word for word. Art styles are refused by name. Knows nothing of pixels.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from oblik.datasets.captions import ACCESSORIES, EXPRESSIONS, LIGHTS, SCENES, refuse_style_words
from oblik.errors import InvalidInput

TABLE = "captions.csv"
MAX_BYTES = 5_000_000
FRAMINGS = ("close-up", "head and shoulders", "half length")
VIEWS = ("frontal", "three-quarter", "profile")


def read_words(folder: Path) -> dict[str, str]:
    """File name (relative, with /) -> words, from ``captions.csv``; a first line of headings is skipped.

    Raises:
        InvalidInput: the table is not UTF-8 text or names an art style.
    """
    table = folder / TABLE
    if not table.is_file() or table.is_symlink():
        return {}
    found = {}
    for row in csv.reader(io.StringIO(caption_text(table), newline="")):
        if len(row) >= 2 and row[0].strip().lower() not in ("file", "filename", "photo"):
            found[row[0].strip().replace("\\", "/")] = _checked(
                ", ".join(cell.strip() for cell in row[1:]), table
            )
    return found


def words_for(folder: Path, source: str, table: Mapping[str, str]) -> str:
    """The words of one photo: its line in the table, or the .txt beside it, or nothing."""
    if source in table or Path(source).name in table:
        return table.get(source) or table.get(Path(source).name, "")
    sidecar = (folder / source).with_suffix(".txt")
    if sidecar.is_file() and not sidecar.is_symlink():
        return _checked(" ".join(caption_text(sidecar).split()), sidecar)
    return ""


def descriptors_in(words: str) -> tuple[dict[str, str], str]:
    """Split words at commas into descriptors that captions know, and the rest."""
    found: dict[str, str] = {}
    rest = []
    for phrase in (part.strip() for part in words.split(",")):
        known = _known(phrase.lower())
        worn = [found.get("accessories", ""), known.get("accessories", "")]
        found.update(known)
        if any(worn):
            found["accessories"] = ", ".join(part for part in worn if part)
        if phrase and not known:
            rest.append(phrase)
    return found, ", ".join(rest)


def _known(phrase: str) -> dict[str, str]:
    if match := re.fullmatch(r"(\w+) clothes", phrase):
        return {"clothing": match[1]}
    if match := re.fullmatch(r"(?:wearing )?(\w+(?: and \w+)*)", phrase):
        worn = match[1].split(" and ")
        if all(name in ACCESSORIES for name in worn):
            return {"accessories": ", ".join(worn)}
    if phrase in ("hand", "hand at face"):
        return {"accessories": "hand"}
    for key, table in (("expression", EXPRESSIONS), ("scene", SCENES), ("light", LIGHTS)):
        for word, text in table.items():
            if phrase == text or (phrase == word and word != "studio"):
                return {key: word}
    if phrase == "neutral":
        return {"expression": "neutral"}
    if phrase in FRAMINGS:
        return {"framing": phrase}
    view = phrase.removesuffix(" view")
    return {"view": view} if view in VIEWS else {}


def _checked(words: str, file: Path) -> str:
    try:
        refuse_style_words(words)
    except InvalidInput as style:
        raise InvalidInput(f"{file.name}: {style.message}", hint=style.hint) from style
    return words


def caption_text(file: Path) -> str:
    """A text file with captions or words. Raises InvalidInput when it is none or too large."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{file.name} is too large to be captions", hint=f"look at {file}")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(
            f"{file.name} cannot be read as UTF-8 text", hint=f"save {file} as UTF-8"
        ) from problem
