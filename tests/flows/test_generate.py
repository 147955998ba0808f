"""Generation as a flow: consent first, then the token, the LoRA, the plan."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oblik.errors import ConsentError, InvalidInput, NotFound, TokenBroken, TwoPersonas
from oblik.flows.generate import Order, differences, generate, plan_order, replay
from oblik.generation.plan import Plan
from oblik.generation.presets import find_preset
from oblik.generation.record import Record, Step, read_record
from oblik.images import save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.personas.persona import Scope
from oblik.progress import SilentProgress
from oblik.training.artifact import TOKENIZER

if TYPE_CHECKING:
    from tests.flows.conftest import World


def plan_of(world: World, order: Order) -> Plan:
    return plan_order(order, world.persona, find_preset("fast"), world.pack, world.home)


def run(world: World, plan: Plan) -> tuple[Record, Path]:
    return generate(
        world.persona, plan, home=world.home, pack=world.pack, engine=world.engine, progress=SilentProgress(),
        now=world.now,
    )  # fmt: skip


def test_words_become_pictures_in_the_next_version_of_the_gallery(world: World) -> None:
    world.artifact()
    plan = plan_of(world, Order("in a park", {"seeds": (3, 4)}))
    record, folder = run(world, plan)
    assert plan.prompt == "photo of <oblik_sitter> woman with red hair, in a park"
    assert (plan.lora, plan.width_px, plan.steps) == ("v001", 64, 4)
    assert folder == world.home.persona("sitter").gallery / "v001"
    assert [picture.seed for picture in record.pictures] == [3, 4]
    assert {path.name for path in folder.iterdir()} == {
        "01-seed3.png",
        "02-seed4.png",
        "grid.png",
        "record.json",
        "graph.json",
    }
    assert run(world, plan)[1].name == "v002"


def test_consent_comes_before_the_engine(world: World) -> None:
    world.artifact()
    plan = plan_of(world, Order("in a park"))
    world.persona = world.sign("other", scopes=frozenset({Scope.chat}))
    with pytest.raises(ConsentError, match="portraits"):
        run(world, plan)
    world.persona = world.sign("gone", revoked_on=date(2026, 1, 2))
    with pytest.raises(ConsentError, match="revoked"):
        run(world, plan)
    assert world.engine.plans == []


def test_without_a_lora_there_is_nothing_to_ask_for(world: World) -> None:
    with pytest.raises(NotFound) as missing:
        plan_of(world, Order("in a park"))
    assert missing.value.hint == "oblik train"


def test_parts_can_be_taken_away(world: World) -> None:
    world.artifact()
    full, weak, bare, nothing = (
        plan_of(world, Order("smiling", {}, lora=lora, token=token))
        for lora, token in ((True, True), (False, True), (True, False), (False, False))
    )
    assert (full.lora_scale > 0, full.lora) == (True, "v001")
    assert (weak.lora_scale, weak.lora, weak.prompt) == (0.0, "v001", full.prompt)
    assert (bare.lora_scale, bare.prompt) == (full.lora_scale, "photo of a woman, smiling")
    assert (nothing.lora, nothing.prompt) == (None, bare.prompt)
    assert full.seeds == weak.seeds == bare.seeds == nothing.seeds


def test_a_scene_is_named_in_the_prompt(world: World) -> None:
    world.artifact()
    place = world.home.root / "scenes" / "harbour.txt"
    place.parent.mkdir()
    place.write_text("at a harbour, daylight\n", encoding="utf-8")
    assert plan_of(world, Order("smiling, @harbour")).prompt.endswith("smiling, at a harbour, daylight")


def test_a_lora_of_another_pack_is_refused(world: World) -> None:
    world.artifact()
    plan = plan_of(world, Order("smiling"))
    other = OpenPack(
        manifest=world.pack.manifest.model_copy(update={"name": "ink"}), folder=world.pack.folder
    )
    world.pack = other
    with pytest.raises(InvalidInput, match="trained on the pack 'paint', not 'ink'"):
        run(world, plan)


def test_a_tokenizer_that_lost_the_token_stops_the_run(world: World) -> None:
    folder = world.artifact()
    plan = plan_of(world, Order("smiling"))
    (folder / TOKENIZER).write_bytes(world.pack.tokenizer_file.read_bytes())
    with pytest.raises(TokenBroken, match="falls apart into"):
        run(world, plan)
    assert world.engine.plans == []


def test_somebody_elses_lora_does_not_take_this_token(world: World) -> None:
    world.artifact()
    plan = plan_of(world, Order("smiling")).model_copy(update={"prompt": "photo of <oblik_alex> man"})
    with pytest.raises(TwoPersonas):
        run(world, plan)


OTHER = {
    "machine": {"cpu": "a, AVX2", "gpu": "x", "driver": "1.2"}, "token_sha256": "a",
    "text_encoder_sha256": "c", "face_stack": "one",
}  # fmt: skip
ELSEWHERE = {
    "machine": {"cpu": "b, AVX512", "gpu": "x", "driver": "1.3"}, "token_sha256": "b",
    "text_encoder_sha256": "d", "face_stack": "two",
}  # fmt: skip


def test_a_record_runs_again_to_the_same_pixels(world: World, tmp_path: Path) -> None:
    world.artifact()
    record, folder = run(world, plan_of(world, Order("smiling", {"seeds": (1, 2)})))

    def again(name: str) -> tuple[bool, tuple[bool, ...], tuple[str, ...]]:
        found = replay(
            folder, world.persona, home=world.home, pack=world.pack, engine=world.engine,
            progress=SilentProgress(), now=world.now, out_dir=tmp_path / name,
        )  # fmt: skip
        return found.identical, found.same, found.differences

    assert again("same") == (True, (True, True), ())
    changed = record.model_copy(deep=True)
    changed.libraries["paint"] = "0.9"
    changed.pack_sha256 = "a"
    changed.steps = [Step(name="memory plan", kind="note", reason="int8")]
    changed.pictures[1].pixels_sha256 = "0" * 64
    (folder / "record.json").write_text(changed.model_dump_json(), encoding="utf-8")
    assert again("other") == (
        False,
        (True, False),
        (
            "paint 0.9 became 1",
            'pack sha256 "a" became null',
            'memory plan ["int8"] became []',
        ),
    )
    assert read_record(tmp_path / "other").pictures == record.pictures
    assert differences(record, record.model_copy(update=OTHER)) == (), "nothing is known of what was before"
    assert differences(record.model_copy(update=OTHER), record.model_copy(update=ELSEWHERE)) == (
        "cpu a, AVX2 became b, AVX512",
        "driver 1.2 became 1.3",
        "face stack one became two",
        'token sha256 "a" became "b"',
        'text encoder sha256 "c" became "d"',
    )
    for picture in changed.pictures:  # a record of the time before labels: other bytes, the same pixels
        picture.pixels_sha256, picture.sha256 = None, "0" * 64
    (folder / "record.json").write_text(changed.model_dump_json(), encoding="utf-8")
    assert again("old")[0]
    save_clean_png(Image.new("RGB", (64, 64)), folder / changed.pictures[0].file)
    assert again("older")[1] == (False, True)
