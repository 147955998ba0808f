"""The page holds what happened, needs nothing from outside, and is the same for the same story."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oblik.flows.calibrate import measure, note_scores, open_ruler, pictures_in
from oblik.flows.generate import Order, generate, plan_order
from oblik.flows.report import count, duration, percent, summary, tell
from oblik.flows.story import Batch, Story, grade
from oblik.generation.presets import find_preset
from oblik.generation.record import read_record
from oblik.likeness.calibration import Calibration
from oblik.progress import SilentProgress
from oblik.training.artifact import CURVES, TrainingLog, read_artifact

if TYPE_CHECKING:
    from tests.flows.conftest import World


@pytest.fixture
def story(world: World) -> Story:
    dataset, artifact_dir = world.dataset(), world.artifact()
    gallery = world.home.persona("sitter").gallery
    for kind in ("portraits", "without_token"):
        order = Order("in a <park>", {"seeds": (1, 2, 3)}, token=kind == "portraits")
        plan = plan_order(order, world.persona, find_preset("fast"), world.pack, world.home)
        generate(
            world.persona, plan, home=world.home, pack=world.pack, engine=world.engine,
            progress=SilentProgress(), now=world.now, folder=gallery / kind,
        )  # fmt: skip
    ruler = open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack)
    report = measure(
        world.persona, gallery / "portraits", ruler, home=world.home, progress=SilentProgress(),
        now=world.now, without_token=gallery / "without_token",
    )  # fmt: skip
    strangers = pictures_in(gallery / "without_token")
    scores = dict(zip(strangers, ruler.score(strangers, SilentProgress()), strict=True))
    note_scores(gallery / "without_token", scores, ruler)
    return Story(
        persona=world.persona, pack=world.pack.manifest, dataset=dataset,
        dataset_dir=world.home.persona("sitter").datasets / "v001", photos_dir=world.photos_dir,
        artifact=read_artifact(artifact_dir), artifact_dir=artifact_dir,
        log=TrainingLog.model_validate_json((artifact_dir / CURVES).read_bytes()),
        batches=tuple(
            Batch(kind, kind, kind, f"about {kind}", ((read_record(gallery / kind), gallery / kind),))
            for kind in ("portraits", "without_token")
        ),
        report=report, impostors_N=np.linspace(-0.5, 0.9, 500), home="home", record_path="record.json",
        seconds={"train": 94.0},
    )  # fmt: skip


class Structure(HTMLParser):
    """What a page asks for, and whether its tags close."""

    VOID = frozenset(
        {"meta", "img", "br", "hr", "input", "link", "line", "rect", "circle", "polygon", "polyline"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nothing_of_the_network(story: Story) -> None:
    page = tell(story)
    read = Structure()
    read.feed(page)
    assert read.open == []
    assert all(asked.startswith("data:image/") for asked in read.asked)
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_everything_is_on_the_page(story: Story) -> None:
    page = tell(story)
    read = Structure()
    read.feed(page)
    pair, portraits, compared, photos, aside, film = 2, 3, 6, 12, 1, 5
    assert read.images == pair + portraits + compared + photos + aside + film
    assert "Recognised." in page
    assert "somebody else" in page
    assert "unreadable" in page
    assert story.pack.limits in page
    assert "median once the token is taken out" in page
    assert page.count('class="chip pass"') == 1 + 1 + 3 + 3, "pair, legend, portraits, first row"


def test_words_from_outside_are_escaped(story: Story) -> None:
    page = tell(story)
    assert "in a <park>" not in page
    assert "in a &lt;park&gt;" in page
    assert "&lt;oblik_sitter&gt;" in page


def test_the_same_story_gives_the_same_bytes(story: Story) -> None:
    assert tell(story) == tell(story)


def test_nothing_names_a_folder_of_this_machine(story: Story) -> None:
    assert str(story.dataset_dir.parent) not in re.sub(r"data:[^\"]+", "", tell(story))


def test_the_summary_is_one_line(story: Story) -> None:
    line = summary(story)
    assert "\n" not in line
    assert line.startswith("likeness 0.9")
    assert "recognised; no copies; without the token" in line
    assert line.endswith("LoRA trained in 94 s")


@pytest.mark.parametrize(
    ("likeness", "wanted", "expected"),
    [
        (0.7, True, "pass"), (0.6, True, "pass"), (0.56, True, "near"), (0.3, True, "below"),
        (None, True, "miss"), (0.3, False, "quiet"), (0.7, False, "near"), (None, False, "miss"),
    ],
)  # fmt: skip
def test_grades(likeness: float | None, wanted: bool, expected: str) -> None:
    calibration = Calibration(
        stack="hue", source="painted", fmr=0.01, threshold=0.6, threshold_low=0.55, threshold_high=0.65,
        nearest_threshold=0.6, nearest_low=0.5, nearest_high=0.7, references=3, impostor_identities=300,
        impostor_scores=3000, bootstrap_draws=1,
    )  # fmt: skip
    assert grade(likeness, calibration, wanted=wanted) == expected


def test_words_for_numbers() -> None:
    assert (duration(94.4), duration(210)) == ("94 s", "3.5 min")
    assert (percent(0.01), percent(0.875)) == ("1 %", "87.5 %")
    assert (count(1, "file"), count(8, "portrait"), count(31, "photo")) == (
        "One file",
        "Eight portraits",
        "31 photos",
    )
