"""The whole flow: every stage once, in order; nothing twice; what was stopped goes on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from tests.flows.conftest import World, make_pack, make_persona

from oblik.datasets.captions import anybody
from oblik.errors import JobCancelled
from oblik.flows.demo import KINDS, DemoOrder, DemoResult, run_demo
from oblik.generation.record import read_record
from oblik.paths import Home
from oblik.personas.store import PersonaStore
from oblik.progress import SilentProgress

STAGES = ("photos", "dataset", "train", *KINDS, "likeness")


def run(world: World, out: Path, **wishes: object) -> DemoResult:
    order = DemoOrder(out, photos=50, portraits=3, **wishes)  # type: ignore[arg-type]
    return run_demo(order, world.workshop(), progress=SilentProgress(), now=world.now)


class Finished(NamedTuple):
    """A demo that is done; running it once more changes nothing."""

    world: World
    out: Path
    result: DemoResult


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    home = Home(root / "home")
    world = World(home, make_pack(root / "pack"), make_persona(home), root / "photos")
    return Finished(world, root / "demo", run(world, root / "demo"))


def test_all_stages_lead_to_a_page_and_a_line(finished: Finished) -> None:
    result = finished.result
    assert (result.done, result.reused) == (STAGES, ())
    assert result.page == finished.out / "report.html"
    assert result.summary.startswith("likeness ")
    home = Home(result.home)
    persona = PersonaStore(home).get(result.persona)
    assert persona.consent.kind == "synthetic"
    assert persona.descriptors == {"gender": "woman", "hair_color": "red"}
    page = result.page.read_text(encoding="utf-8")
    assert page.count("somebody else") >= 2
    assert "unreadable" in page


def test_the_three_batches_differ_only_in_what_is_taken_away(finished: Finished) -> None:
    result = finished.result
    gallery = Home(result.home).persona(result.persona).gallery / "demo"
    full, weak, bare = (read_record(gallery / kind / "02") for kind in KINDS)
    assert full.plan.seeds == weak.plan.seeds == bare.plan.seeds == (2,)
    assert (full.plan.lora_scale > 0, weak.plan.lora_scale, bare.plan.lora_scale > 0) == (True, 0.0, True)
    assert full.plan.prompt == weak.plan.prompt
    assert bare.plan.prompt == anybody(full.plan.prompt, "<oblik_sitter_900007>", "woman")
    assert all(record.threshold is not None for record in (full, weak, bare))
    assert full.pictures[0].likeness is not None
    assert full.pictures[0].likeness > (bare.pictures[0].likeness or 0)


def test_a_second_run_does_nothing_and_ends_with_the_same_page(finished: Finished) -> None:
    world, out, first = finished
    page, plans = first.page.read_bytes(), len(world.engine.plans)
    second = run(world, out)
    assert (second.done, second.reused) == ((), STAGES)
    assert (len(world.engine.plans), len(world.trainer.requests)) == (plans, 1)
    assert second.page.read_bytes() == page
    assert second.summary == first.summary


def test_only_what_hangs_on_a_change_is_done_again(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "demo")
    result = run(world, tmp_path / "demo", train={"steps": 7})
    assert result.reused == ("photos", "dataset")
    assert world.trainer.requests[-1].out_dir.name == "v002"
    assert run(world, tmp_path / "demo", train={"steps": 7}, plan={"steps": 9}).reused == STAGES[:3]


def test_a_lost_picture_is_made_again(world: World, tmp_path: Path) -> None:
    result = run(world, tmp_path / "demo")
    next(
        (Home(result.home).persona(result.persona).gallery / "demo" / "portraits" / "01").glob("*seed1.png")
    ).unlink()
    assert run(world, tmp_path / "demo").done == ("portraits", "likeness")


def test_a_stopped_training_goes_on_in_its_folder(world: World, tmp_path: Path) -> None:
    world.trainer = type(world.trainer)(stop_once=True)
    with pytest.raises(JobCancelled):
        run(world, tmp_path / "demo")
    run(world, tmp_path / "demo")
    first, second = world.trainer.requests
    assert (first.resume, second.resume) == (False, True)
    assert first.out_dir == second.out_dir
