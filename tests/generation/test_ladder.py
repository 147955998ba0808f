"""Climbing: rungs are pure, keep seeds and sampler, and are tried until likeness suffices."""

from __future__ import annotations

from pathlib import Path

import pytest

from oblik.errors import BackendUnavailable
from oblik.generation.ladder import Heights, Ladder, Rung, climb, ladder, larger
from oblik.generation.plan import Control, Plan
from oblik.generation.presets import find_preset
from oblik.generation.record import Step
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home

PLAN = Plan(pack="p", persona="sitter", prompt="photo", seeds=(1, 2), steps=30)
PHOTOS = ("datasets/v001/images/a.png", "datasets/v001/images/b.png")


def more_steps(plan: Plan) -> Plan:
    return plan.model_copy(update={"steps": plan.steps + 10})


RUNGS = (Rung("more", "r1", more_steps), Rung("again", "r2", more_steps), Rung("last", "r3", more_steps))


def likeness_of(plan: Plan) -> float:
    return {30: 0.4, 40: 0.6, 50: 0.55, 60: 0.5}[plan.steps]


def test_nothing_is_climbed_when_the_first_run_suffices() -> None:
    result = climb(PLAN, likeness_of, 0.3, rungs=RUNGS)
    assert (result.best.plan, result.steps, result.exhausted) == (PLAN, (), False)


def test_it_stops_at_the_first_rung_that_suffices() -> None:
    result = climb(PLAN, likeness_of, 0.6, rungs=RUNGS)
    assert [step.name for step in result.steps] == ["more"]
    assert (result.steps[0].likeness_before, result.steps[0].likeness_after) == (0.4, 0.6)
    assert not result.exhausted


def test_the_best_attempt_wins_and_exhaustion_is_said() -> None:
    result = climb(PLAN, likeness_of, 0.9, rungs=RUNGS)
    assert len(result.steps) == 3
    assert result.best.plan.steps == 40
    assert result.exhausted


def test_a_rung_that_changes_the_seeds_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="seeds"):
        climb(
            PLAN,
            likeness_of,
            0.9,
            rungs=[Rung("bad", "", lambda plan: plan.model_copy(update={"seeds": (3,)}))],
        )


def whole_ladder(**asked: int) -> Ladder:
    return ladder(open_pack(str(BUNDLED / "miniature"), Home(Path("nowhere"))), PHOTOS, Heights(), **asked)


@pytest.mark.parametrize("rung", [*whole_ladder().rungs, *RUNGS], ids=lambda rung: rung.name)
def test_rungs_are_pure(rung: Rung) -> None:
    before = PLAN.model_dump()
    assert rung.raised(PLAN) == rung.raised(PLAN)
    assert PLAN.model_dump() == before


def test_a_pack_without_editing_weights_says_so_and_draws_the_face_again_with_what_it_has(
    tmp_path: Path,
) -> None:
    part = tmp_path / "identity" / "projector.safetensors"
    part.parent.mkdir()
    part.write_bytes(b"")
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
    found = ladder(OpenPack(manifest=manifest, folder=tmp_path), PHOTOS, Heights())
    assert [rung.name for rung in found.rungs] == ["1 reference", "2 larger and longer", "3 edit"]
    assert [lack.what for lack in found.missing] == ["rung 3, edit-reference: the pack p has no edit"]
    assert "identity tokens" in found.missing[0].instead
    lowest, *_, highest = (rung.raised(PLAN).references for rung in found.rungs if rung.name != "2")
    assert {each.adapter for each in highest} == {"identity-tokens"}
    assert highest[0].weight == Heights().edit_weight > Heights().reference_weight == lowest[0].weight


def test_the_pose_of_a_face_is_kept_where_the_pack_can_and_the_plan_has_no_control(tmp_path: Path) -> None:
    bundled = open_pack(str(BUNDLED / "miniature"), Home(Path("nowhere")))
    found = ladder(bundled, PHOTOS, Heights(pose_weight=0.4))
    (kept,) = found.rungs[0].raised(PLAN).controls
    assert (kept.kind, kept.image, kept.weight) == ("pose", None, 0.4)
    assert "pose kept at 0.4" in found.rungs[0].reason
    own = (Control(kind="depth", image="controls/a.png"),)
    assert found.rungs[0].raised(PLAN.model_copy(update={"controls": own})).controls == own
    part = tmp_path / "identity" / "projector.safetensors"
    part.parent.mkdir()
    part.write_bytes(b"")
    bare = OpenPack(manifest=bundled.manifest, folder=tmp_path)
    for weight, said in ((0.4, ["the pose of a face that is drawn again"]), (0.0, [])):
        lacking = ladder(bare, PHOTOS, Heights(pose_weight=weight), highest=1)
        assert [each.what.split(":")[0] for each in lacking.missing] == said
        assert lacking.rungs[0].raised(PLAN).controls == ()


def test_with_editing_weights_the_third_rung_shows_the_network_two_photos(tmp_path: Path) -> None:
    (tmp_path / "edit").mkdir()
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
    found = ladder(OpenPack(manifest=manifest, folder=tmp_path), (*PHOTOS, "c.png"), Heights())
    assert [rung.name for rung in found.rungs] == ["2 larger and longer", "3 edit"]
    assert all(not lack.what.startswith("rung 3") for lack in found.missing)
    raised = found.rungs[-1].raised(PLAN)
    assert [each.adapter for each in raised.references] == ["edit-reference"] * 2
    assert raised.mode == "reliable"
    nobody = ladder(OpenPack(manifest=manifest, folder=tmp_path), (), Heights())
    assert [rung.name for rung in nobody.rungs] == ["2 larger and longer"]
    assert "rung 3: no photo of the person to refer to" in [lack.what for lack in nobody.missing]


def test_the_bundled_packs_rungs() -> None:
    found = whole_ladder()
    assert [rung.name for rung in found.rungs] == ["1 reference", "2 larger and longer", "3 edit"]
    first = found.rungs[0].raised(PLAN)
    assert [reference.image for reference in first.references] == list(PHOTOS)
    assert {reference.weight for reference in first.references} == {Heights().reference_weight}
    assert all(reference.face_mask_only for reference in first.references)
    assert first.mode == "reliable"
    assert [rung.name for rung in whole_ladder(highest=1).rungs] == ["1 reference"]
    assert whole_ladder(highest=2).missing == ()


def test_a_pack_without_adapters_keeps_the_second_rung_and_says_so_for_the_first(tmp_path: Path) -> None:
    manifest = Pack(name="big", version="1", family="qwen_image", native_size_px=1328, side_multiple_px=16)
    found = ladder(OpenPack(manifest=manifest, folder=tmp_path), PHOTOS, Heights())
    assert [rung.name for rung in found.rungs] == ["2 larger and longer"]
    assert [lack.what.split(":")[0] for lack in found.missing] == [
        "rung 1, identity-tokens", "rung 1, ip-adapter-faceid", "rung 3, edit-reference",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("native_px", "size_px", "raised_px"),
    [(1328, (768, 1024), (1024, 1360)), (128, (128, 128), (128, 128)), (1328, (1280, 1536), (1280, 1536))],
)
def test_the_second_rung_keeps_the_shape_and_the_packs_native_size(
    native_px: int, size_px: tuple[int, int], raised_px: tuple[int, int]
) -> None:
    pack = Pack(name="p", version="1", family="f", native_size_px=native_px, side_multiple_px=16)
    plan = PLAN.model_copy(update={"width_px": size_px[0], "height_px": size_px[1]})
    raised = larger(plan, Heights(), pack)
    assert (raised.width_px, raised.height_px) == raised_px
    assert 50 <= raised.steps <= 70
    assert larger(raised.model_copy(update={"steps": 90}), Heights(), pack).steps == 90


def test_the_heights_of_every_family_are_as_required() -> None:
    """Weight 0.5 to 0.7, 1024 px and 50 to 70 steps."""
    for heights in find_preset("reliable").ladder.values():
        assert 0.5 <= heights.reference_weight <= 0.7
        assert heights.short_side_px == 1024
        assert 50 <= heights.steps <= 70


def test_the_first_rung_can_be_asked_for_whatever_the_likeness() -> None:
    result = climb(PLAN, likeness_of, 0.3, rungs=RUNGS, at_least=1)
    assert [step.name for step in result.steps] == ["more"]
    assert result.best.plan.steps == 40


def test_a_rung_that_changes_nothing_is_said_and_not_run_again() -> None:
    runs: list[Plan] = []
    said: list[Step] = []

    def run(plan: Plan) -> float:
        runs.append(plan)
        return 0.1

    same = Rung("same", "", lambda plan: plan.model_copy())
    result = climb(PLAN, run, 0.5, rungs=[same], note=said.append)
    assert runs == [PLAN]
    assert said == list(result.steps)
    assert "changes nothing" in said[0].reason
    assert said[0].likeness_after is None


def test_a_rung_that_the_engine_cannot_run_is_said_and_the_next_one_goes_on_from_below() -> None:
    def run(plan: Plan) -> float:
        if plan.steps == 31:
            raise BackendUnavailable("no eyes", hint="oblik doctor")
        return likeness_of(plan)

    odd = Rung("odd", "", lambda plan: plan.model_copy(update={"steps": plan.steps + 1}))
    result = climb(PLAN, run, 0.6, rungs=[odd, *RUNGS])
    assert result.steps[0].reason == "not available: no eyes; oblik doctor"
    assert result.steps[0].likeness_after is None
    assert result.best.plan.steps == 40
