"""Scenes: a name in a prompt becomes its words, and one's own words come before those that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from oblik.datasets.captions import SCENES
from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.generation.scenes import read_scenes, remove_scene, save_scene, set_scenes


def test_every_place_that_captions_know_has_a_scene_in_their_words() -> None:
    scenes = read_scenes()
    assert set(scenes) == set(SCENES)
    assert all(SCENES[name] in words for name, words in scenes.items())


def test_a_name_becomes_its_words_wherever_it_stands() -> None:
    scenes = {"park": "in a park, daylight"}
    assert set_scenes("smiling, @park", scenes) == "smiling, in a park, daylight"
    assert set_scenes("@Park, smiling", scenes) == "in a park, daylight, smiling"
    assert set_scenes("mail a@park", scenes) == "mail a@park"


def test_an_unknown_scene_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(NotFound, match="'moon'") as refused:
        set_scenes("@moon", {"park": "in a park"})
    assert "known: park" in str(refused.value.hint)


def test_one_of_ones_own_covers_a_shipped_one_until_it_is_removed(tmp_path: Path) -> None:
    shipped = read_scenes(tmp_path)["park"]
    save_scene("park", " in a  park, at noon ", tmp_path)
    assert read_scenes(tmp_path)["park"] == "in a park, at noon"
    with pytest.raises(Conflict):
        save_scene("park", "in a park", tmp_path)
    save_scene("park", "in a park", tmp_path, replace=True)
    remove_scene("park", tmp_path)
    assert read_scenes(tmp_path)["park"] == shipped
    with pytest.raises(NotFound):
        remove_scene("park", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("../x", "in a park"), ("x", "  "), ("x", "a watercolor"), ("x", "@park"), ("x", "of <oblik_sitter>")],
)
def test_what_no_scene_can_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InvalidInput):
        save_scene(name, words, tmp_path)
    assert list(tmp_path.iterdir()) == []
