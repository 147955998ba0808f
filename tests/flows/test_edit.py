"""Editing as a flow: by what right, what may change, what stays beside the pictures, what is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.flows.conftest import SITTER, STRANGER, painted

from oblik.cli.edit import command
from oblik.errors import ConsentError, InvalidInput, JobCancelled
from oblik.flows.edit import ALPHA, FRAME, MASK, Where, Wish, edit, next_step
from oblik.flows.generate import Order, replay
from oblik.generation.adapters import Sight
from oblik.generation.engine import picture_name
from oblik.generation.frames import paste
from oblik.generation.ladder import Heights
from oblik.generation.plan import Control, Plan
from oblik.generation.presets import find_preset
from oblik.generation.record import Picture, Record, read_record, write_record
from oblik.images import save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home, sha256_file
from oblik.personas.persona import Persona, Scope
from oblik.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World


@dataclass
class PastingEngine:
    """Pastes the sitter's colours into the frame that a plan names."""

    home: Home
    person: NDArray[np.float64] = field(default_factory=SITTER.copy)
    stop: bool = False
    plans: list[Plan] = field(default_factory=list)

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: Any,
        progress: Progress,
    ) -> Record:  # fmt: skip
        self.plans.append(plan)
        if self.stop:
            raise JobCancelled("stopped")
        assert plan.edit
        assert plan.edit.window
        assert plan.persona
        place = self.home.persona(plan.persona).toml.parent
        frame, alpha = (np.asarray(Image.open(place / name)) for name in (plan.edit.image, plan.edit.mask))
        record = Record(
            plan=plan, asked=plan, started_at=now, token_ids=[], prompt_ids=[], lora_sha256=None,
            edit_sha256={name: sha256_file(place / name) for name in (plan.edit.image, plan.edit.mask)},
            pack_version="1", libraries={}, device="cpu", free_vram_bytes=None, seconds={}, pictures=[],
        )  # fmt: skip
        for number, seed in enumerate(plan.seeds, start=1):
            drawn = np.asarray(painted(self.person, seed, 1), np.float32) / 255
            path = out_dir / picture_name(number, seed)
            save_clean_png(Image.fromarray(paste(frame, drawn, alpha, plan.edit.window)), path)
            record.pictures.append(Picture(file=path.name, seed=seed, sha256=sha256_file(path)))
        write_record(record, out_dir)
        return record


@pytest.fixture
def sitter(world: World) -> Persona:
    made = world.sign("model", scopes=frozenset({Scope.edit}), signed_on=date(2026, 1, 1))
    world.persona = made
    world.dataset()
    world.artifact()
    return made


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "frame.png"
    painted(STRANGER, 5, 1).resize((96, 96)).save(path)
    return path


def whole(tmp_path: Path, size: tuple[int, int] = (96, 96)) -> Path:
    path = tmp_path / "mask.png"
    Image.new("L", size, 255).save(path)
    return path


def run(
    world: World, person: Persona, wish: Wish, said: list[str] | None = None, **asked: Any
) -> tuple[Record, Path, PastingEngine]:
    engine = asked.pop("engine", PastingEngine(world.home))
    preset = find_preset(asked.pop("preset", "fast"), Path("none"))
    where = Where(
        world.home, world.pack, engine, lambda: world.stack, preset, Heights(),
        (said if said is not None else []).append,
    )  # fmt: skip
    order = Order("in a park", {"seeds": (1,), **asked})
    record, folder = edit(person, order, wish, where, progress=SilentProgress(), now=world.now)
    return record, folder, engine


def test_a_consent_without_the_scope_edit_is_refused_and_nothing_is_written(
    world: World, frame: Path
) -> None:
    world.dataset()
    with pytest.raises(ConsentError, match="does not cover 'edit'") as refused:
        run(world, world.persona, Wish(frame, face=True))
    assert refused.value.hint
    assert not any(world.home.persona("sitter").gallery.iterdir())


def test_a_whole_frame_becomes_the_sitter_and_is_measured(
    world: World, sitter: Persona, frame: Path, tmp_path: Path
) -> None:
    record, folder, _ = run(world, sitter, Wish(frame, mask=whole(tmp_path)))
    (picture,) = record.pictures
    assert record.threshold is not None
    assert picture.likeness is not None
    assert picture.likeness > record.threshold
    assert record.guards is not None
    assert (record.guards.copying, record.guards.bleed) == ("no copies", "bleed not measured")
    assert read_record(folder) == record
    inside = f"gallery/{folder.name}"
    wanted = {f"{inside}/{name}": sha256_file(folder / name) for name in (FRAME, ALPHA)}
    assert record.edit_sha256 == wanted
    assert sitter.trigger in record.plan.prompt


def test_only_the_found_face_changes_and_a_second_edit_takes_the_kept_map(
    world: World, sitter: Persona, frame: Path
) -> None:
    record, folder, _ = run(world, sitter, Wish(frame, face=True))
    before = np.asarray(Image.open(frame))
    after = np.asarray(Image.open(folder / record.pictures[0].file))
    alpha = np.asarray(Image.open(folder / ALPHA))
    assert (after[alpha == 0] == before[alpha == 0]).all()
    assert (after != before).any()
    again, second, _ = run(world, sitter, Wish(folder / record.pictures[0].file, strength=0.5))
    assert (folder / ALPHA).read_bytes() == (second / ALPHA).read_bytes()
    assert again.plan.edit
    assert again.plan.edit.strength == 0.5
    with pytest.raises(InvalidInput, match="nothing says what may change"):
        run(world, sitter, Wish(frame))


def test_a_mask_of_another_size_and_a_frame_without_a_face_are_refused(
    world: World, sitter: Persona, frame: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="the mask has 9x9 px and the frame 96x96"):
        run(world, sitter, Wish(frame, mask=whole(tmp_path, (9, 9))))
    Image.new("RGB", (96, 96)).save(frame)
    with pytest.raises(InvalidInput, match="no face is found"):
        run(world, sitter, Wish(frame, face=True))


def test_a_larger_canvas_keeps_the_frame_and_asks_for_nothing_of_the_person(
    world: World, sitter: Persona, frame: Path
) -> None:
    """A face that nobody meant would be drawn into the margins, as large as they are."""
    said: list[str] = []
    record, folder, engine = run(world, sitter, Wish(frame, outpaint="0,0,32,0"), said)
    after = np.asarray(Image.open(folder / record.pictures[0].file))
    assert after.shape == (96, 128, 3)
    assert (after[:, :80] == np.asarray(Image.open(frame))[:, :80]).all()
    (plan,) = engine.plans
    assert plan.prompt == "in a park", "neither the person nor anybody"
    assert (plan.lora, plan.lora_scale, plan.references) == (None, 0.0, ())
    assert record.pictures[0].likeness is record.threshold is None
    assert any("no likeness is measured" in line for line in said)
    again, _, _ = run(world, sitter, Wish(folder / record.pictures[0].file))
    assert sitter.trigger not in again.plan.prompt, "an edit that goes on means what the one before meant"


def test_a_face_in_a_larger_canvas_is_the_persons(world: World, sitter: Persona, frame: Path) -> None:
    record, folder, _ = run(world, sitter, Wish(frame, face=True, outpaint="0,0,32,0"))
    assert sitter.trigger in record.plan.prompt
    assert record.plan.lora == "v001"
    assert record.threshold is not None
    again, _, _ = run(world, sitter, Wish(folder / record.pictures[0].file))
    assert sitter.trigger in again.plan.prompt


def test_the_given_mask_is_kept(world: World, sitter: Persona, frame: Path, tmp_path: Path) -> None:
    _, folder, _ = run(world, sitter, Wish(frame, mask=whole(tmp_path)))
    assert (np.asarray(Image.open(folder / MASK)) == 255).all()
    _, folder, _ = run(world, sitter, Wish(frame, face=True))
    assert not (folder / MASK).exists()


def test_a_likeness_that_falls_short_says_what_to_do_next(
    world: World, sitter: Persona, frame: Path, tmp_path: Path
) -> None:
    """Every option that it names is one of the command's, and none that would change nothing is named."""
    said: list[str] = []
    run(world, sitter, Wish(frame, mask=whole(tmp_path)), said)
    assert not any("below the threshold" in line for line in said)
    wish = Wish(frame, face=True, strength=0.5, references=False)
    run(world, sitter, wish, said, engine=PastingEngine(world.home, STRANGER))
    (line,) = [line for line in said if "below the threshold" in line]
    assert line.startswith("1 of 1 below the threshold of ")
    assert {"--strength", "--no-references", "--count", "--lora-scale"} == set(re.findall(r"--[\w-]+", line))
    assert "oblik dataset build PHOTOS" in line
    record, _, _ = run(world, sitter, replace(wish, strength=1.0), engine=PastingEngine(world.home, STRANGER))
    kept = record.plan.model_copy(update={"controls": (Control(kind="pose"),), "lora_scale": 1.0})
    told = next_step(replace(wish, strength=1.0, references=True), kept)
    named = set(re.findall(r"--[\w-]+", told))
    assert named == {"--control-scale", "--no-keep-pose", "--count"}
    assert named <= {name for option in command.params for name in option.opts}


def test_what_a_pack_lacks_is_said(world: World, sitter: Persona, frame: Path) -> None:
    said: list[str] = []
    record, _, _ = run(world, sitter, Wish(frame, face=True), said)
    assert not record.plan.references
    assert not record.plan.controls
    assert any("has no reference adapter" in line for line in said)
    assert any("the pose of the frame is not kept" in line for line in said)


def test_photos_are_referred_to_and_the_pose_kept_where_the_pack_can(
    world: World, sitter: Persona, frame: Path
) -> None:
    for part in ("identity/projector.safetensors", "controlnet/config.json"):
        (world.pack.folder / part).parent.mkdir()
        (world.pack.folder / part).write_bytes(b"{}")
    record, _, _ = run(world, sitter, Wish(frame, face=True))
    assert {each.adapter for each in record.plan.references} == {"identity-tokens"}
    assert {each.weight for each in record.plan.references} == {Heights().edit_weight}
    assert [(each.kind, each.image, each.weight) for each in record.plan.controls] == [("pose", None, 0.8)]
    record, _, _ = run(world, sitter, Wish(frame, outpaint="0,0,32,0"))
    assert record.plan.controls == ()
    (world.pack.folder / "edit").mkdir()
    record, _, _ = run(world, sitter, Wish(frame, face=True))
    assert [each.adapter for each in record.plan.references] == ["edit-reference"] * 2
    record, _, _ = run(world, sitter, Wish(frame, face=True, references=False, pose=0))
    assert not record.plan.references
    assert not record.plan.controls


def test_an_edit_that_is_stopped_leaves_nothing_behind(world: World, sitter: Persona, frame: Path) -> None:
    with pytest.raises(JobCancelled):
        run(world, sitter, Wish(frame, face=True), engine=PastingEngine(world.home, stop=True))
    assert not any(world.home.persona("model").gallery.iterdir())


def test_an_edit_is_replayed_under_its_own_scope(
    world: World, sitter: Persona, frame: Path, tmp_path: Path
) -> None:
    _, folder, engine = run(world, sitter, Wish(frame, face=True))
    found = replay(
        folder, sitter, home=world.home, pack=world.pack, engine=engine, progress=SilentProgress(),
        now=world.now, out_dir=tmp_path / "again",
    )  # fmt: skip
    assert found.identical
    (folder / ALPHA).write_bytes((folder / FRAME).read_bytes())
    portraits = world.sign("other", scopes=frozenset({Scope.portraits}))
    with pytest.raises(ConsentError):
        replay(
            folder, portraits, home=world.home, pack=world.pack, engine=engine, progress=SilentProgress(),
            now=world.now, out_dir=tmp_path / "more",
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_the_miniature_draws_the_surroundings_of_anybody(
    world: World, sitter: Persona, frame: Path, tmp_path: Path
) -> None:
    """With real weights: the same bytes as of the pack alone, the frame kept, no token among the ids."""
    from oblik.generation.backends.diffusers_engine import DiffusersEngine

    world.pack = open_pack(str(BUNDLED / "miniature"), world.home)
    engine: Any = DiffusersEngine("cpu", sight=Sight(world.home.personas, lambda: world.stack))
    record, folder, _ = run(
        world, sitter, Wish(frame, outpaint="0,0,64,0"), engine=engine, steps=2, preset="preview"
    )
    bare = record.plan.model_copy(update={"lora": None, "prompt": "in a park"})
    again = engine.run(
        bare, pack=world.pack, artifact=None, out_dir=tmp_path / "bare", now=world.now,
        progress=SilentProgress(),
    )  # fmt: skip
    assert again.pictures[0].sha256 == record.pictures[0].sha256
    assert record.token_ids == []
    drawn = np.asarray(Image.open(folder / record.pictures[0].file))
    assert (drawn[:, :90] == np.asarray(Image.open(frame))[:, :90]).all()
    assert np.ptp(drawn[:, 100:].astype(int), axis=1).max() > 20, "the margin is drawn"
