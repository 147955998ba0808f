"""Memory runs out at every stage of what is more than a plain picture: references, edits, a control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.generation.backends.test_edits import EDIT, NOW, pack, personas, plan_of, stack
from tests.generation.backends.test_planned_engine import Engine, bytes_of

from oblik.faces.stack import FaceStack
from oblik.generation.adapters import Sight
from oblik.generation.engine import FIRST
from oblik.generation.plan import Control, Plan
from oblik.generation.record import Record, read_record
from oblik.packs.manifest import OpenPack
from oblik.progress import SilentProgress

__all__ = ["pack", "personas", "stack"]
pytestmark = pytest.mark.filterwarnings("ignore")

SHORT: dict[str, Any] = {"steps": 2, "seeds": (1, 2)}
PLANS = {
    "references": plan_of("identity-tokens", **SHORT),
    "edit": plan_of("identity-tokens", edit=EDIT, **SHORT),
    "rung 3": plan_of("edit-reference", **SHORT),
    "control": plan_of(controls=(Control(kind="pose", image="pose.png"),), **SHORT),
}
PLAIN = plan_of(steps=2)


@pytest.fixture(scope="module")
def engine(personas: Path, stack: FaceStack) -> Engine:
    made = Engine()
    made._sight = Sight(personas, lambda: stack)
    return made


def run(engine: Engine, plan: Plan, pack: OpenPack, out_dir: Path) -> Record:
    return engine.run(plan, pack=pack, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress())


@pytest.mark.parametrize("kind", PLANS)
def test_every_kind_of_picture_goes_on_smaller_at_every_stage_and_leaves_no_trace(
    engine: Engine, pack: OpenPack, tmp_path: Path, kind: str
) -> None:
    plan = PLANS[kind]
    engine.stage = ""
    before = run(engine, PLAIN, pack, tmp_path / "before")
    whole = run(engine, plan, pack, tmp_path / "whole")
    for stage in ("load", "encode text", "denoise", "decode"):
        engine.stage, engine.full, engine.skip = stage, 1, 0
        engine._texts.clear()
        record = run(engine, plan, pack, tmp_path / stage)
        assert engine.full == 0, stage
        assert any(f"out of memory in {stage!r}" in step.reason for step in record.steps), stage
        assert [picture.seed for picture in record.pictures] == [1, 2]
        assert (record.asked, read_record(tmp_path / stage)) == (plan, record)
        assert not (tmp_path / stage / FIRST).exists()
        if stage in ("load", "encode text"):
            assert bytes_of(record) == bytes_of(whole), "no picture changes because its prompt did not fit"
    engine.stage = ""
    assert bytes_of(run(engine, PLAIN, pack, tmp_path / "after")) == bytes_of(before)
