"""Scenes: words for a place and its light under a name, so that ``@park`` in a prompt stands for them.

In: a prompt, folders of text files. Out: the prompt with every scene's words in its place. A scene is a
file ``<name>.txt`` of one line; a user's own come before those that ship with Oblik. Knows nothing of
personas and plans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from oblik.datasets.captions import refuse_tokens
from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.generation.presets import NAME, SHIPPED
from oblik.generation.prompt import refuse_styles
from oblik.paths import atomic_write

FOLDER = "scenes"
MOST_WORDS = 600
_MARK = re.compile(r"(?<!\S)@([\w-]+)")


def read_scenes(*folders: Path) -> dict[str, str]:
    """The words of every scene by name; earlier folders come before later ones, the shipped ones last."""
    found: dict[str, str] = {}
    for folder in (SHIPPED / FOLDER, *reversed(folders)):
        for path in sorted(folder.glob("*.txt")):
            found[path.stem] = " ".join(path.read_text(encoding="utf-8").split())
    return found


def set_scenes(text: str, scenes: Mapping[str, str]) -> str:
    """``text`` with a scene's words in the place of each ``@name``. Raises NotFound for an unknown one."""

    def words(mark: re.Match[str]) -> str:
        name = mark.group(1).lower()
        if name not in scenes:
            raise NotFound(
                f"no scene is called {name!r}", hint=f"known: {', '.join(sorted(scenes))}; oblik scene save"
            )
        return scenes[name]

    return _MARK.sub(words, text)


def save_scene(name: str, text: str, folder: Path, *, replace: bool = False) -> Path:
    """Write ``folder/name.txt``.

    Raises:
        InvalidInput: the name cannot be a file's, or the words are too many, none, an art style or a token.
        Conflict: there is one of that name, and ``replace`` was not asked for.
    """
    words = " ".join(text.split())
    if not re.fullmatch(NAME, name):
        raise InvalidInput(
            f"{name!r} cannot name a scene: small letters, digits, - and _, at most 40",
            hint='oblik scene save harbour "at a harbour, daylight"',
        )
    if not 0 < len(words) <= MOST_WORDS or _MARK.search(words):
        raise InvalidInput(
            f"a scene is 1 to {MOST_WORDS} characters without the name of another scene",
            hint='oblik scene save harbour "at a harbour, daylight"',
        )
    refuse_styles(words)
    refuse_tokens(words)
    path = folder / f"{name}.txt"
    if path.exists() and not replace:
        raise Conflict(f"there is a scene called {name!r}", hint=f"oblik scene save {name} ... --replace")
    atomic_write(path, words + "\n")
    return path


def remove_scene(name: str, folder: Path) -> None:
    """Delete one of the user's own. Raises NotFound for any other."""
    if not re.fullmatch(NAME, name) or not (folder / f"{name}.txt").is_file():
        raise NotFound(f"no scene of your own is called {name!r}", hint="oblik scene list")
    (folder / f"{name}.txt").unlink()
