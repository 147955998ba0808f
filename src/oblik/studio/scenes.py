"""Scenes: names for places that a prompt can hold.

In: settings and plain values. Out: the words of scenes and where they lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oblik.studio.house import home_of

if TYPE_CHECKING:
    from oblik.settings import Settings


class Scene(NamedTuple):
    """Its words, and whether they are the user's own."""

    words: str
    own: bool


def list_scenes(settings: Settings) -> dict[str, Scene]:
    """Every scene by name, a user's own in place of a shipped one of the same name."""
    from oblik.generation.scenes import read_scenes

    folder = _own(settings)
    found = read_scenes(folder)
    return {name: Scene(found[name], (folder / f"{name}.txt").is_file()) for name in sorted(found)}


def save_scene(settings: Settings, name: str, words: str, *, replace: bool = False) -> Path:
    """Keep ``words`` as a scene of one's own. Raises InvalidInput, and Conflict when there is one."""
    from oblik.generation.scenes import save_scene as save

    return save(name, words, _own(settings), replace=replace)


def remove_scene(settings: Settings, name: str) -> None:
    """Delete a scene of one's own. Raises NotFound."""
    from oblik.generation.scenes import remove_scene as remove

    remove(name, _own(settings))


def _own(settings: Settings) -> Path:
    from oblik.generation.scenes import FOLDER

    return home_of(settings).root / FOLDER
