"""The pack's caption network: it reads what changes from photo to photo, and nothing of the person."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from oblik.datasets.backends.network import CaptionNetwork
from oblik.datasets.sources import Picture, open_source, usual_source
from oblik.errors import PackBroken
from oblik.miniature.corpus import HELD_OUT
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.packs.store import open_pack
from oblik.paths import Home

MINIATURE = open_pack("miniature", Home(Path()))


@pytest.fixture(scope="module")
def network() -> CaptionNetwork:
    return CaptionNetwork(MINIATURE.words_folder)


def portrait(seed: int, **shot: object) -> Image.Image:
    return Image.fromarray(render(Person.from_seed(seed), Shot(framing="close-up", **shot), 128).image)  # type: ignore[arg-type]


def test_it_reads_strangers_as_they_were_drawn(network: CaptionNetwork) -> None:
    right = said = 0
    for place, seed in enumerate(range(HELD_OUT + 5000, HELD_OUT + 5020)):
        shot = {
            "glasses": place % 2 == 0, "expression": ("laugh", "serious", "surprised")[place % 3],
            "scene": ("park", "beach", "night", "studio")[place % 4], "hat": place % 5 == 0,
        }  # fmt: skip
        read = network.read(portrait(seed, **shot))
        worn = read["accessories"].split(", ")
        answers = [("glasses" in worn) == shot["glasses"], ("hat" in worn) == shot["hat"]]
        answers += [read[key] == shot[key] for key in ("expression", "scene") if key in read]
        right, said = right + sum(answers), said + len(answers)
    assert said >= 60
    assert right / said >= 0.9


def test_what_the_user_wrote_is_kept(network: CaptionNetwork) -> None:
    assert network.describe(Picture(portrait(1), words="in a boat")) == "in a boat"


def test_it_is_not_asked_about_the_person(network: CaptionNetwork) -> None:
    assert {"gender", "age", "skin", "hair_color", "hair_style", "beard"}.isdisjoint(network.file.questions)


def test_a_pack_with_a_network_uses_it_and_one_without_uses_the_users_words(tmp_path: Path) -> None:
    assert usual_source(MINIATURE).name == "network"
    assert usual_source(MINIATURE.model_copy(update={"folder": tmp_path})).name == "words"


def test_a_damaged_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_bytes((MINIATURE.words_folder / "words.json").read_bytes())
    (tmp_path / "words.onnx").write_bytes(b"not a network")
    with pytest.raises(PackBroken, match=r"words\.onnx"):
        open_source("network", folder=tmp_path)
