"""Orders: everything is refused before the first picture, and nothing that is finished is made twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from tests.flows.conftest import SITTER, STRANGER, painted

from oblik.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    ConsentError,
    InvalidInput,
    JobCancelled,
    NotFound,
    OutOfMemory,
    PackBroken,
    TooHot,
    TwoPersonas,
)
from oblik.flows.batches import LOCK, PART
from oblik.flows.calibrate import pictures_in
from oblik.flows.generate import replay
from oblik.flows.orders import Bench, planned, run_order, target_of
from oblik.flows.smoke import clean, smoke
from oblik.generation.engine import picture_name
from oblik.generation.heat import HeatGuard, Reading
from oblik.generation.order_file import OrderFile, read_order
from oblik.generation.order_report import FILE_NAME, OrderReport, read_order_report
from oblik.generation.plan import Plan
from oblik.generation.record import Picture, Record, Step, read_record, write_record
from oblik.images import save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.paths import private_dir, sha256_file
from oblik.personas.amend import revoked
from oblik.personas.store import PersonaStore
from oblik.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World

GRID = """name: spring
persona: sitter
type: grid
prompts: [in a park, at night]
seeds: [1, 2, 3]
plan: {batch: 2}
"""


class BreakingEngine:
    """As the real one: pictures as they are finished, a record whatever happens. ``breaks`` maps a seed to
    what
    is raised there, time after time."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.breaks: dict[int, list[BaseException]] = {}
        self.before: Callable[[int], object] = lambda seed: None
        self.steps: list[Step] = []

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: datetime,
        progress: Progress,
    ) -> Record:  # fmt: skip
        self.plans.append(plan)
        record = Record(
            plan=plan, asked=plan, started_at=now, token_ids=[], prompt_ids=[], lora_sha256=None,
            pack_version="1", libraries={}, device="cpu", free_vram_bytes=None, seconds={"denoise": 0.1},
            steps=self.steps, pictures=[],
        )  # fmt: skip
        private_dir(out_dir)
        try:
            for place, seed in enumerate(plan.seeds, start=1):
                progress.check_cancelled()
                self.before(seed)
                if self.breaks.get(seed):
                    raise self.breaks[seed].pop()
                path = out_dir / picture_name(place, seed)
                save_clean_png(Image.new("RGB", (16, 16), (seed % 256, 90, len(plan.prompt))), path)
                record.pictures.append(Picture(file=path.name, seed=seed, sha256=sha256_file(path)))
        finally:
            if record.pictures:
                write_record(record, out_dir)
        return record

    def seeds(self) -> list[tuple[int, ...]]:
        return [plan.seeds for plan in self.plans]


@dataclass
class Shop:
    """A world with an artifact, and orders."""

    world: World
    folder: Path
    engine: BreakingEngine = field(default_factory=BreakingEngine)
    slept_s: list[float] = field(default_factory=list)
    temperatures_c: list[float] = field(default_factory=list)

    def file(self, text: str = GRID) -> OrderFile:
        path = private_dir(self.folder) / "order.yaml"
        path.write_text(text, encoding="utf-8")
        return read_order(path)

    @property
    def bench(self) -> Bench:
        guard = HeatGuard(self if self.temperatures_c else None, sleep=self.slept_s.append)
        return Bench(
            self.world.home, self.world.pack, lambda: self.engine, guard, lambda: self.world.stack,
            ["<oblik_alex>"],
        )  # fmt: skip

    def read(self) -> Reading:
        return Reading(self.temperatures_c.pop(0) if len(self.temperatures_c) > 1 else self.temperatures_c[0])

    def run(self, text: str = GRID) -> OrderReport:
        return run_order(
            self.file(text), self.world.persona, self.bench, progress=SilentProgress(), now=self.world.now
        )

    def report(self) -> OrderReport:
        found = read_order_report(self.target)
        assert found is not None
        return found

    @property
    def target(self) -> Path:
        return self.world.home.persona("sitter").gallery / "orders" / "spring"


@pytest.fixture
def shop(world: World, tmp_path: Path) -> Shop:
    world.artifact()
    return Shop(world, tmp_path / "orders")


def plans(shop: Shop, file: OrderFile) -> list[Plan]:
    return [batch.plan for batch in planned(file, shop.world.persona, shop.bench, shop.world.now)]


def made(report: OrderReport) -> list[tuple[str, int, bool]]:
    return [(picture.item, picture.seed, picture.again) for picture in report.pictures]


def graphs(target: Path) -> list[str]:
    """Folders that hold a graph; each holds the record that it belongs to."""
    found = sorted(path.parent for path in target.glob("*/graph.json"))
    assert all((folder / "record.json").is_file() for folder in found)
    return [folder.name for folder in found]


WHOLE = [(item, seed) for item in ("prompt-1", "prompt-2") for seed in (1, 2, 3)]


def test_one_file_becomes_pictures_records_a_grid_and_a_report(shop: Shop) -> None:
    report = shop.run()
    assert made(report) == [(item, seed, False) for item, seed in WHOLE]
    assert (report.state, report.wanted, report.lora, report.grid) == ("done", 6, "v001", "grid.png")
    assert shop.engine.seeds() == [(1, 2), (3,), (1, 2), (3,)]
    assert {plan.batch for plan in shop.engine.plans} == {2}
    assert sorted(path.name for path in shop.target.iterdir() if path.is_dir()) == [
        "001-prompt-1", "002-prompt-1", "003-prompt-2", "004-prompt-2",
    ]  # fmt: skip
    assert all(sha256_file(shop.target / picture.file) == picture.sha256 for picture in report.pictures)
    assert shop.report() == report
    assert len(pictures_in(shop.target)) == 6, "likeness measures an order like any folder"
    assert len(report.machine.memory_bytes) == 4
    assert shop.slept_s == [0.5] * 12, "the standard level rests 2 s between batches, and not after the last"


def test_a_batch_of_an_order_can_be_replayed(shop: Shop, tmp_path: Path) -> None:
    shop.run()
    found = replay(
        shop.target / "003-prompt-2", shop.world.persona, home=shop.world.home, pack=shop.world.pack,
        engine=shop.engine, progress=SilentProgress(), now=shop.world.now, out_dir=tmp_path / "again",
    )  # fmt: skip
    assert found.identical


def test_a_finished_order_opens_no_engine(shop: Shop) -> None:
    shop.run()
    shop.engine.plans.clear()
    again = shop.run()
    assert shop.engine.plans == []
    assert made(again) == [(item, seed, True) for item, seed in WHOLE]
    assert again.sentence == "6 of 6 pictures, 6 of them from before"


@pytest.mark.parametrize("stop", [JobCancelled("stop"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_a_stopped_order_goes_on_without_repeating_a_picture(shop: Shop, stop: BaseException) -> None:
    shop.engine.breaks[2] = [stop]
    with pytest.raises(type(stop)):
        shop.run()
    assert (shop.report().state, made(shop.report())) == ("stopped", [("prompt-1", 1, False)])
    assert graphs(shop.target) == ["001-prompt-1"], "a run that was stopped has its graph, too"
    shop.engine.plans.clear()
    report = shop.run()
    assert made(report) == [("prompt-1", 1, True), *((item, seed, False) for item, seed in WHOLE[1:])]
    assert shop.engine.seeds() == [(2, 3), (1, 2), (3,)]
    assert not list(shop.target.glob(f"*{PART}"))


def test_after_a_kill_whole_batches_are_kept_and_half_ones_leave_nothing(shop: Shop) -> None:
    shop.run()
    whole, half = shop.target / "001-prompt-1", shop.target / "003-prompt-2"
    whole.rename(whole.with_name(whole.name + PART))
    (half / "record.json").unlink()
    half.rename(half.with_name(half.name + PART))
    shop.engine.plans.clear()
    assert shop.run().state == "done"
    assert shop.engine.seeds() == [(1, 2)]
    assert whole.is_dir()
    assert not half.exists()
    assert len(pictures_in(shop.target)) == 6


def test_a_damaged_picture_is_made_again(shop: Shop) -> None:
    report = shop.run()
    (shop.target / report.pictures[4].file).write_bytes(b"\x89PNG torn")
    (shop.target / report.pictures[0].file).unlink()
    shop.engine.plans.clear()
    again = shop.run()
    assert shop.engine.seeds() == [(1,), (2,)]
    assert [picture.again for picture in again.pictures] == [False, True, True, True, False, True]


def test_a_changed_order_makes_what_is_new_and_lists_what_it_asks_for(shop: Shop) -> None:
    shop.run()
    shop.engine.plans.clear()
    report = shop.run(GRID.replace("at night", "on a beach").replace("[1, 2, 3]", "[3, 4]"))
    assert made(report) == [
        ("prompt-1", 3, True), ("prompt-1", 4, False), ("prompt-2", 3, False), ("prompt-2", 4, False),
    ]  # fmt: skip
    assert shop.engine.seeds() == [(4,), (3, 4)]


def test_an_order_goes_on_with_the_lora_it_began_with(shop: Shop) -> None:
    shop.engine.breaks[2] = [JobCancelled("stop")]
    with pytest.raises(JobCancelled):
        shop.run()
    shop.world.artifact("v002")
    assert shop.run().lora == "v001"
    assert {plan.lora for plan in shop.engine.plans} == {"v001"}
    assert shop.run(GRID + "lora: v002\n").lora == "v002"


def test_a_picture_that_fails_takes_no_other_with_it(shop: Shop) -> None:
    shop.engine.breaks[1] = [BackendError("black"), BackendError("black"), BackendError("black")]
    report = shop.run()
    assert shop.engine.seeds() == [(1, 2), (1,), (2,), (3,), (1, 2), (1,), (2,), (3,)]
    assert [(failure.item, failure.seed, failure.code) for failure in report.failures] == [
        ("prompt-1", 1, "backend"),
    ]  # fmt: skip
    assert report.state == "incomplete"
    assert len(report.pictures) == 5
    shop.engine.breaks.clear()
    assert shop.run().state == "done", "what failed is tried again"


def test_memory_that_is_too_small_for_a_batch_is_enough_for_one(shop: Shop) -> None:
    shop.engine.breaks[2] = [OutOfMemory("full")]
    assert shop.run().state == "done"
    assert shop.engine.seeds()[:3] == [(1, 2), (2,), (3,)], "the first of the batch was finished before"


def test_what_always_fails_is_not_tried_for_ever(shop: Shop) -> None:
    for seed in (1, 2, 3):
        shop.engine.breaks[seed] = [BackendError("black") for _ in range(9)]
    with pytest.raises(BackendError, match="black"):
        shop.run()
    assert (shop.report().state, len(shop.report().failures)) == ("stopped", 3)
    assert len(shop.engine.plans) <= 5


def test_a_broken_pack_ends_the_order_at_once(shop: Shop) -> None:
    shop.engine.breaks[1] = [PackBroken("torn")]
    with pytest.raises(PackBroken):
        shop.run()
    assert (len(shop.engine.plans), shop.report().stopped_by) == (1, "pack_broken")


def test_a_hot_card_stops_the_order_and_the_same_command_goes_on(shop: Shop) -> None:
    shop.temperatures_c = [60, 70, 80, 86]
    with pytest.raises(TooHot):
        shop.run()
    stopped = shop.report()
    assert (stopped.stopped_by, stopped.machine.hottest_c) == ("too_hot", 86)
    assert stopped.pictures
    shop.temperatures_c = [60]
    assert shop.run().state == "done"


def test_degradations_and_rungs_stand_in_the_report(shop: Shop) -> None:
    shop.engine.steps = [Step(name="half the batch", kind="degradation", reason="memory")]
    assert [(change.folder, change.step.name) for change in shop.run().changes][:1] == [
        ("001-prompt-1", "half the batch"),
    ]  # fmt: skip


def test_consent_is_asked_before_the_engine_and_between_batches(shop: Shop) -> None:
    store = PersonaStore(shop.world.home)
    shop.engine.before = lambda seed: seed == 3 and store.save(revoked(store.get("sitter"), date(2026, 1, 2)))
    with pytest.raises(ConsentError, match="revoked"):
        shop.run()
    assert shop.engine.seeds() == [(1, 2), (3,)], "no batch after it was revoked"
    assert shop.report().stopped_by == "consent"
    shop.engine.plans.clear()
    with pytest.raises(ConsentError):
        shop.run()
    assert shop.engine.plans == []


def test_a_person_who_is_deleted_meanwhile_leaves_nothing_behind(shop: Shop) -> None:
    root = shop.world.home.persona("sitter").root

    def delete(seed: int) -> None:
        if seed == 3:
            shutil.rmtree(root)

    shop.engine.before = delete
    with pytest.raises(ConsentError, match="deleted"):
        shop.run()
    assert not root.exists()


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (("at night", "<oblik_alex> at night"), TwoPersonas, "order.yaml:4: prompts.1: .*alex"),
        (("at night", "an oil painting"), InvalidInput, "order.yaml:4: prompts.1: .*art style"),
        (("type: grid", "type: grid\nquality: splendid"), NotFound, "splendid"),
        (("type: grid", "type: grid\nlora: v009"), NotFound, "no LoRA v009"),
    ],
)
def test_what_cannot_be_made_is_refused_before_the_first_picture(
    shop: Shop, change: tuple[str, str], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        shop.run(GRID.replace(*change))
    assert shop.engine.plans == []
    assert not shop.target.exists()


def test_styles_are_allowed_where_the_order_says_so(shop: Shop) -> None:
    file = shop.file(GRID.replace("at night", "an oil painting") + "style: true\n")
    assert "painting" in plans(shop, file)[1].prompt


def test_a_value_outside_its_quality_level_is_refused_at_its_line(shop: Shop) -> None:
    """That of an item, that of the order, and not what a preset of the order's own says."""
    head = "name: spring\npersona: sitter\ntype: catalogue\nplan:\n  guidance: 3\n  steps: 20\n"
    items = "items:\n  - prompt: one\n    plan: {steps: 40, lora_scale: 1.2}\n  - prompt: two\n"
    with pytest.raises(InvalidInput) as refused:
        plans(shop, shop.file(head + items))
    assert refused.value.message == "order.yaml:9: items.0.plan.lora_scale: 0.6 to 0.9, not 1.2"
    with pytest.raises(InvalidInput) as refused:
        plans(shop, shop.file(head + items.replace(", lora_scale: 1.2", "")))
    assert refused.value.message == "order.yaml:6: plan.steps: 30 to 50, not 20"
    found = plans(shop, shop.file(head + "quality: experimental\n" + items))
    assert [(plan.steps, plan.lora_scale) for plan in found] == [(40, 1.2), (20, 0.8)]


def test_a_preset_of_a_file_is_meant_from_the_order_on(shop: Shop) -> None:
    private_dir(shop.folder)
    (shop.folder / "mine.toml").write_text('about = "x"\n[plan]\nsteps = 9\n', encoding="utf-8")
    file = shop.file(GRID + "quality: mine.toml\n")
    assert {plan.steps for plan in plans(shop, file)} == {9}


CONTROL = "controls: [{kind: pose, image: me.png, weight: 0.6}]"


@pytest.fixture
def net(shop: Shop) -> Path:
    """A ControlNet in the pack, and a photo beside the order."""
    path = shop.world.pack.folder / "controlnet" / "config.json"
    private_dir(path.parent)
    path.write_text("{}")
    painted(SITTER, 1).save(private_dir(shop.folder) / "me.png")
    return path


def test_pictures_of_an_order_follow_a_control_image(shop: Shop, net: Path) -> None:
    text = f"""name: spring
persona: sitter
type: catalogue
count: 1
plan: {{{CONTROL}}}
items:
  - prompt: by the sea
  - {{prompt: at night, plan: {{{CONTROL.replace("pose", "given")}}}}}
"""
    assert shop.run(text).state == "done"
    posed, given = (plan.controls[0] for plan in shop.engine.plans)
    assert (posed.kind, posed.weight, given.kind) == ("pose", 0.6, "given")
    kept = [shop.world.home.persona("sitter").root / str(control.image) for control in (posed, given)]
    assert all(path.parent.name == "controls" and path.is_file() for path in kept)
    assert np.asarray(Image.open(kept[0]))[2, 2].max() == 0, "of the pose's photo nothing is kept"
    shop.engine.plans.clear()
    assert shop.run(text).state == "done"
    assert shop.engine.plans == [], "the same control is the same picture"


def test_a_preset_names_its_control_from_its_own_file_on(shop: Shop, net: Path) -> None:
    folder = private_dir(shop.folder / "presets")
    (shop.folder / "me.png").rename(folder / "left.png")
    text = 'about = "x"\n[[plan.controls]]\nkind = "given"\nimage = "left.png"\n'
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    (plan, _) = plans(shop, shop.file(GRID + "quality: presets/mine.toml\n"))
    assert str(plan.controls[0].image).startswith("controls/")
    (plan, _) = plans(
        shop, shop.file(GRID.replace("batch: 2", "controls: []") + "quality: presets/mine.toml")
    )
    assert plan.controls == (), "an order may go without"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda shop, net: net.unlink(), BackendUnavailable, "order.yaml:6: plan.controls: .*no controlnet"),
        (
            lambda shop, net: (shop.folder / "me.png").unlink(),
            NotFound,
            "order.yaml:6: plan.controls: .*me.png",
        ),
        (
            lambda shop, net: Image.new("RGB", (64, 64)).save(shop.folder / "me.png"),
            InvalidInput,
            "6: .*no face",
        ),
    ],
)
def test_a_control_that_cannot_be_followed_is_refused_with_its_line(
    shop: Shop, net: Path, change: Callable[[Shop, Path], object], kind: type[Exception], said: str
) -> None:
    change(shop, net)
    with pytest.raises(kind, match=said):
        shop.run(GRID.replace("batch: 2", CONTROL))
    assert shop.engine.plans == []
    assert not (shop.world.home.persona("sitter").root / "controls").exists()


def test_without_consent_no_photo_of_a_control_is_read(shop: Shop, net: Path) -> None:
    (shop.folder / "me.png").unlink()
    PersonaStore(shop.world.home).save(revoked(shop.world.persona, date(2026, 1, 1)))
    with pytest.raises(ConsentError):
        plans(shop, shop.file(GRID.replace("batch: 2", CONTROL)))


class ClimbingEngine(BreakingEngine):
    """More of the sitter with references; ``black`` are seeds whose referred picture fails each time."""

    black: frozenset[int] = frozenset()

    def run(self, plan: Plan, **where: Any) -> Record:
        record = super().run(plan, **where)
        if plan.references and self.black & set(plan.seeds):
            raise BackendError("black")
        share = 0.6 if plan.references else 0.45
        for picture in record.pictures:
            path = where["out_dir"] / picture.file
            save_clean_png(painted(share * SITTER + (1 - share) * STRANGER, picture.seed, spread=1), path)
            picture.sha256 = sha256_file(path)
        write_record(record, where["out_dir"])
        return record


RELIABLE = GRID.replace("batch: 2", "batch: 2, mode: reliable")


@pytest.fixture
def climbing(shop: Shop) -> ClimbingEngine:
    """An order's engine that climbs, with all that it needs."""
    shop.world.dataset(24)
    (private_dir(shop.world.pack.folder / "identity") / "projector.safetensors").write_bytes(b"weights")
    shop.engine = ClimbingEngine()
    return shop.engine


@pytest.mark.parametrize("order", [RELIABLE, GRID + "quality: reliable\n"])
def test_a_reliable_order_is_measured_and_climbs(shop: Shop, climbing: ClimbingEngine, order: str) -> None:
    report = shop.run(order)
    assert (report.state, len(report.pictures)) == ("done", 6)
    rungs = [step for step in (change.step for change in report.changes) if step.likeness_after]
    assert rungs
    assert rungs[0].name == "1 reference"
    assert all((step.likeness_before or 1) < (step.likeness_after or 0) for step in rungs[:1])
    assert all(picture.likeness is not None for picture in report.pictures)
    kept = read_record(shop.target / "001-prompt-1")
    assert kept.plan.references
    assert kept.asked == climbing.plans[0]
    assert not [path.name for path in shop.target.iterdir() if "rung" in path.name or PART in path.name]
    climbing.plans.clear()
    assert all(picture.again for picture in shop.run(order).pictures)
    assert climbing.plans == []


def test_a_climb_that_is_stopped_or_killed_is_made_again(shop: Shop, climbing: ClimbingEngine) -> None:
    climbing.breaks[3] = [JobCancelled("stop")]
    with pytest.raises(JobCancelled):
        shop.run(RELIABLE)
    assert made(shop.report()) == [("prompt-1", 1, False), ("prompt-1", 2, False)]
    assert [path.name for path in shop.target.iterdir() if path.is_dir()] == ["001-prompt-1"]
    shutil.copytree(shop.target / "001-prompt-1", shop.target / f".002-prompt-1{PART}-rung0")
    climbing.plans.clear()
    report = shop.run(RELIABLE)
    assert made(report)[:3] == [("prompt-1", 1, True), ("prompt-1", 2, True), ("prompt-1", 3, False)]
    assert climbing.plans[0].seeds == (3,)
    assert not list(shop.target.glob(".*rung*"))


def test_a_picture_that_fails_on_a_rung_takes_no_other_with_it(shop: Shop, climbing: ClimbingEngine) -> None:
    climbing.black = frozenset({2})
    report = shop.run(RELIABLE)
    assert [(failure.item, failure.seed) for failure in report.failures] == [("prompt-1", 2), ("prompt-2", 2)]
    assert len(report.pictures) == 4


def test_a_reliable_order_that_nobody_can_measure_is_refused_with_its_line(shop: Shop) -> None:
    with pytest.raises(NotFound, match=r"order.yaml:4: prompts.0: "):
        shop.run(RELIABLE)
    assert shop.engine.plans == []


def test_one_run_at_a_time(shop: Shop) -> None:
    private_dir(shop.target)
    with FileLock(shop.target / LOCK), pytest.raises(Conflict, match="at work"):
        shop.run()


def test_a_folder_is_meant_from_the_file_on(shop: Shop) -> None:
    file = shop.file(GRID + "folder: ../pictures\n")
    assert target_of(file, shop.world.home).resolve() == shop.folder.parent.resolve() / "pictures"


# The smoke test runs through the same batches.


def smoke_run(shop: Shop, out: Path, persona: bool = False) -> OrderReport:
    return smoke(
        shop.bench, shop.world.persona if persona else None, out=out, progress=SilentProgress(),
        now=shop.world.now, count=3,
    )  # fmt: skip


def names(folder: Path) -> Sequence[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_smoke_makes_pictures_one_by_one_and_cleans_only_its_own(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    report = smoke_run(shop, out)
    assert (report.state, report.persona, shop.engine.seeds()) == ("done", None, [(1,), (2,), (3,)])
    assert all(plan.persona is None and "<oblik_" not in plan.prompt for plan in shop.engine.plans)
    assert sum(shop.slept_s) == 4.0
    assert graphs(out) == ["001-smoke", "002-smoke", "003-smoke"]
    mine = [
        out / "notes.txt",
        out / "holiday.png",
        out / "001-smoke" / "me.jpg",
        out / "002-beach" / "01-seed1.png",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    (out / "009-smoke").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "grid.png").write_bytes(b"mine")
    clean(out)
    assert names(out) == sorted(path.relative_to(out).as_posix() for path in mine)
    assert (tmp_path / "elsewhere" / "grid.png").is_file()
    assert len(smoke_run(shop, out).made_now) == 3


def test_smoke_can_use_a_persona_and_leaves_orders_alone(shop: Shop, tmp_path: Path) -> None:
    assert smoke_run(shop, tmp_path / "smoke", persona=True).lora == "v001"
    assert "<oblik_sitter>" in shop.engine.plans[0].prompt
    shop.run()
    with pytest.raises(Conflict, match="order 'spring'"):
        smoke_run(shop, shop.target)
    assert (shop.target / FILE_NAME).is_file()
