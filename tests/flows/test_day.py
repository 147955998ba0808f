"""The report of a day: sums that can be checked by hand, a page that holds no picture and no prompt."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik import studio
from oblik.errors import InvalidInput
from oblik.flows.acceptance import accept
from oblik.flows.day import DAYS, gather
from oblik.flows.day_page import page, sentence, write_day
from oblik.flows.logs import Journal
from oblik.generation.order_report import Failure, Machine, OrderReport, write_order_report
from oblik.generation.plan import Plan
from oblik.generation.record import USUAL, Picture, Record, Step, write_record
from oblik.paths import Home
from oblik.progress import SilentProgress
from oblik.settings import Settings

if TYPE_CHECKING:
    from tests.flows.conftest import World

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Days are those of the local time zone; here that is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    _tell_time()
    yield
    monkeypatch.undo()
    _tell_time()


def _tell_time() -> None:
    if hasattr(time, "tzset"):
        time.tzset()


def put(
    home: Home,
    folder: str,
    scores: list[float | None],
    *,
    slug: str = "sitter",
    at: datetime = NOON,
    steps: tuple[Step, ...] = (),
    mode: str = "fast",
    measured: bool = True,
    asked_mode: str = "fast",
    place: Path | None = None,
    **plan: object,
) -> None:
    """A record of pictures with these scores; None where no face was found."""
    values = {"prompt": f"<oblik_{slug}> secret words", "seeds": tuple(range(len(scores))), **plan}
    asked = Plan.model_validate({"pack": "paint", "persona": slug, "mode": asked_mode, **values})
    pictures = [
        Picture(file=f"{seed}.png", seed=seed, sha256="0", likeness=score if measured else None,
                face_found=score is not None if measured else None)
        for seed, score in enumerate(scores)
    ]  # fmt: skip
    record = Record(
        plan=asked.model_copy(update={"mode": mode}), asked=asked, started_at=at, token_ids=[7],
        prompt_ids=[], lora_sha256=None, pack_version="1", libraries={}, device="cpu", seconds={},
        free_vram_bytes=None, steps=list(steps), pictures=pictures, threshold=0.5 if measured else None,
    )  # fmt: skip
    write_record(record, (place or home.persona(slug).gallery) / folder)


def test_the_sums_of_a_day(world: World) -> None:
    home = world.home
    world.sign("alex")
    rung = Step(name="1 reference", kind="rung", reason="low", likeness_before=0.3, likeness_after=0.6)
    put(home, "v001", [0.2, 0.4, None])
    put(
        home,
        "v002",
        [0.6, 0.8],
        steps=(rung, Step(name="half the batch", kind="degradation", reason="memory")),
    )
    put(
        home,
        "orders/spring/001-item",
        [0.0, 0.0],
        measured=False,
        steps=(Step(name="memory plan", kind="note", reason="fits"),),
    )
    put(home, "v003", [0.9], at=NOON - timedelta(days=1))
    put(home, "v001", [1.0], slug="alex", mode="reliable")
    report = gather(home, DAY)
    alex, sitter = report.personas
    assert (sitter.batches, sitter.pictures, sitter.scores) == (3, 7, [0.2, 0.4, None, 0.6, 0.8])
    assert sitter.mean_likeness == pytest.approx(2.0 / 5), "a picture without a face is a miss"
    assert (sitter.recognised, sitter.threshold) == (2, 0.5)
    assert (sitter.switches, sitter.rungs, sitter.degradations) == (
        1,
        {"1 reference": 1},
        {"half the batch": 1},
    )
    assert (alex.switches, alex.reliable) == (1, 1), "fast became reliable"
    assert (report.pictures, report.switches, report.degradations) == (8, 2, 1)
    assert report.mean_likeness == pytest.approx(3.0 / 6)
    assert len(report.trend) == DAYS
    assert [(point.pictures, point.mean_likeness) for point in report.trend][-2:] == [
        (1, 0.9), (8, pytest.approx(0.5)),
    ]  # fmt: skip
    assert gather(home, DAY, "alex").pictures == 1
    assert sentence(gather(home, DAY + timedelta(days=9))) == "nothing was made"


def test_steps_are_counted_by_what_they_are(world: World) -> None:
    """Unmeasured rungs, lacks, flags and notes are no degradations; older records have no kinds."""
    old = [
        {"name": "1 reference", "reason": "tokens"},
        {"name": "not available", "reason": "rung 3: no editing weights"},
        {"name": "collect more photos / retrain", "reason": "low"},
        {"name": "reference", "reason": "no face"},
        {"name": "before the edit: memory plan", "reason": "fits"},
        {"name": "smaller pictures", "reason": "memory"},
    ]
    put(world.home, "v001", [0.2], steps=tuple(Step.model_validate(step) for step in old))
    (entry,) = gather(world.home, DAY).personas
    assert (entry.rungs, entry.degradations) == ({"1 reference": 1}, {"smaller pictures": 1})
    assert (entry.lacks, entry.flags) == ({"rung 3: no editing weights": 1}, 1)


@pytest.mark.parametrize(
    ("asked", "usual", "switches"), [("reliable", 0, 0), ("reliable", 1, 1), ("fast", 0, 1)]
)
def test_a_mode_that_somebody_asked_for_is_no_switch(
    world: World, asked: str, usual: int, switches: int
) -> None:
    rung = Step(name="1 reference", kind="rung", reason="low", likeness_before=0.3, likeness_after=0.6)
    itself = Step(name=USUAL, kind="note", reason="the test of LoRA v001 found TPR 50 %")
    steps = (*[itself] * usual, rung)
    put(world.home, "v001", [0.6], steps=steps, mode="reliable", asked_mode=asked)
    (entry,) = gather(world.home, DAY).personas
    assert (entry.reliable, entry.switches) == (1, switches)


def test_pictures_to_compare_with_are_not_counted(world: World) -> None:
    put(world.home, "v001", [0.6])
    put(world.home, "demo/without_token/01", [0.1], prompt="photo of a woman")
    put(world.home, "demo/without_lora/01", [0.1], lora_scale=0)
    assert gather(world.home, DAY).mean_likeness == 0.6


def test_a_day_begins_at_midnight_of_the_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be set here")
    put(world.home, "v001", [0.5], at=datetime(2026, 3, 1, 22, 30, tzinfo=timezone.utc))
    assert gather(world.home, DAY).pictures == 0
    monkeypatch.setenv("TZ", "Europe/Moscow")
    _tell_time()
    assert gather(world.home, DAY).pictures == 1


def test_orders_outside_the_gallery_are_found_through_the_log(world: World, tmp_path: Path) -> None:
    target = tmp_path / "pictures"
    put(world.home, "001-item", [0.7], place=target)
    failures = [Failure(item="item", seed=3, code="backend", message="black")]
    order = OrderReport(
        name="spring", type="grid", persona="sitter", pack="paint", lora="v001", order_sha256="",
        started_at=NOON, wanted=2, failures=failures, machine=Machine(hottest_c=81),
    )  # fmt: skip
    write_order_report(order, target)
    assert gather(world.home, DAY).pictures == 0
    Journal(world.home).write("order", now=NOON, persona="sitter", folder=str(target))
    report = gather(world.home, DAY)
    assert (report.pictures, report.hottest_c) == (1, 81)
    assert [(trouble.what, trouble.code, trouble.times) for trouble in report.troubles] == [
        ("pictures of orders", "backend", 1),
    ]  # fmt: skip


def test_failures_and_refusals_come_from_the_log(world: World) -> None:
    journal = Journal(world.home)
    for _ in range(2):
        journal.write(
            "generate", now=NOON, level="warning", persona="sitter", outcome="refused", error="consent"
        )
    journal.write("train", now=NOON, level="error", persona="sitter", outcome="failed", error="out_of_memory")
    journal.write("generate", now=NOON, persona="sitter", outcome="done")
    journal.write("train", now=NOON - timedelta(days=1), level="error", outcome="failed", error="disk_full")
    report = gather(world.home, DAY)
    assert [(trouble.what, trouble.code, trouble.times) for trouble in report.troubles] == [
        ("generate", "consent", 2), ("train", "out_of_memory", 1),
    ]  # fmt: skip
    assert (report.failures, report.refusals, report.operations) == (1, 2, {"generate": 1})
    assert sentence(report).endswith("failures 1, refusals 2")


def test_what_is_missing_or_was_stopped_is_no_failure(world: World) -> None:
    journal = Journal(world.home)
    for code in ("backend_unavailable", "invalid_input", "out_of_memory", "job_cancelled"):
        journal.write("generate", now=NOON, level="error", outcome="failed", error=code)
    journal.write("train", now=NOON, level="warning", outcome="stopped")
    report = gather(world.home, DAY)
    assert (report.failures, report.refusals, report.stops) == (1, 2, 2)
    text = page(report)
    assert "1 failure, 2 refusals" in text
    assert text.index("out of memory") < text.index("backend unavailable") < text.index("job cancelled")


def test_the_status_of_the_criterion_is_that_of_the_lora_in_use(world: World) -> None:
    assert gather(world.home, DAY).personas[0].acceptance == "no LoRA yet"
    world.dataset(24)
    world.artifact()
    assert gather(world.home, DAY).personas[0].acceptance == "not tested yet: oblik likeness accept"
    found = accept(
        world.persona, home=world.home, pack=world.pack, engine=world.engine, stack=world.stack,
        progress=SilentProgress(), now=world.now,
    )  # fmt: skip
    (entry,) = gather(world.home, DAY).personas
    assert (entry.lora, entry.accepted, entry.acceptance) == ("v001", None, found.line)
    assert "FMR 1 %" in entry.acceptance


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "url")]


def test_the_page_stands_alone_and_holds_neither_pictures_nor_prompts(world: World) -> None:
    put(world.home, "v001", [0.2, None, 0.9])
    report = gather(world.home, DAY)
    html, data = write_day(report, world.home)
    text = html.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.links == []
    assert "secret words" not in text + data.read_text()
    assert text.count("<svg") == 2
    assert text.count('<circle class="dot "') == 3
    assert "3 pictures, mean likeness 0.37" in text
    assert page(gather(world.home, DAY)) == text, "the same day gives the same bytes"
    values = json.loads(data.read_text())
    assert values["mean_likeness"] == pytest.approx(1.1 / 3)
    assert (values["day"], values["pictures"], values["personas"][0]["persona"]) == (
        "2026-03-02",
        3,
        "sitter",
    )
    assert html == world.home.root / "reports" / "2026-03-02.html"


def test_the_page_says_why_a_batch_climbed(world: World) -> None:
    rungs = [
        Step(name="1 reference", kind="rung", reason="8 photos", likeness_before=0.31, likeness_after=0.42),
        Step(name="2 larger", kind="rung", reason="60 steps", likeness_before=0.42, likeness_after=0.4),
    ]  # fmt: skip
    flag = Step(
        name="collect more photos / retrain", kind="flag", reason="0.42 is below 0.50 after the last rung"
    )
    put(world.home, "v001", [0.42], steps=(*rungs, flag), mode="reliable")
    put(world.home, "v002", [0.6])
    report = gather(world.home, DAY)
    (climb,) = report.personas[0].climbs
    assert (climb.batch, climb.asked, climb.likeness) == ("v001", "fast", [0.31, 0.42, 0.4])
    assert report.flags == 1
    text = page(report)
    assert text.count("<svg") == 3, "the day, the climb, the trend"
    for words in (
        "0.310 → 0.420",
        "0.420 → 0.400",
        "8 photos",
        "after the last rung",
        "threshold 0.50",
    ):
        assert words in text, words
    assert f"flags 1 ({flag.name})" in sentence(report)
    assert "secret words" not in text


def test_a_day_without_anything_has_a_page_too(home: Home) -> None:
    text = page(gather(home, DAY))
    assert "Nothing was made." in text
    assert "There is nobody yet." in text


def test_records_that_were_not_touched_since_are_not_opened(world: World) -> None:
    put(world.home, "v001", [0.5])
    file = world.home.persona("sitter").gallery / "v001" / "record.json"
    old_s = (NOON - timedelta(days=20)).timestamp()
    file.write_text("damaged")
    os.utime(file, (old_s, old_s))
    assert gather(world.home, DAY).pictures == 0


def test_tomorrow_is_refused(home: Home) -> None:
    from oblik import studio

    with pytest.raises(InvalidInput, match="has not come"):
        studio.report_day(Settings(home=home.root), date.today() + timedelta(days=1))


def test_every_day_that_has_none_yet_gets_its_report(world: World) -> None:
    settings, today = Settings(home=world.home.root, device="cpu"), studio.now()
    for back in (0, 1, 5):
        put(world.home, f"v{back + 1:03d}", [0.6], at=today - timedelta(days=back))
    early = write_day(gather(world.home, (today - timedelta(days=5)).date()), world.home)[0]
    five_days_ago = (today - timedelta(days=5)).timestamp()
    os.utime(early, (five_days_ago, five_days_ago))
    old = world.home.logs / f"oblik-{(today - timedelta(days=40)).date()}.jsonl"
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text("")
    due = [(today - timedelta(days=back)).date() for back in (5, 1)]
    assert [found.report.day for found in studio.report_due(settings)] == due, "today has not ended"
    assert not old.exists(), "logs are kept 30 days"
    assert studio.report_due(settings) == []
