"""Training as a flow: consent, the newest dataset, settings of the pack, the next version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oblik.errors import ConsentError, InvalidInput, JobCancelled, NotFound
from oblik.flows.judge import CHOICE
from oblik.flows.train import TrainOrder, config_for, train
from oblik.paths import atomic_write
from oblik.personas.amend import revoked
from oblik.personas.persona import Scope
from oblik.personas.store import PersonaStore
from oblik.progress import Progress, SilentProgress
from oblik.training.artifact import CURVES, TrainingLog, latest_artifact
from oblik.training.config import ATTENTION_TARGETS, TARGETS
from oblik.training.judge import Judgement
from oblik.training.trainer import TrainRequest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import World


def run(world: World, order: TrainOrder | None = None) -> Path:
    return train(
        world.persona, order or TrainOrder(), home=world.home, pack=world.pack, trainer=world.trainer,
        progress=SilentProgress(), now=world.now,
    )  # fmt: skip


def test_the_newest_dataset_becomes_the_next_version(world: World) -> None:
    world.dataset()
    loras = world.home.persona("sitter").loras
    assert run(world) == loras / "v001"
    assert run(world, TrainOrder(asked={"steps": 9, "rank": None})) == loras / "v002"
    first, second = world.trainer.requests
    assert (first.config.steps, second.config.steps, second.config.rank) == (3, 9, 16)
    assert (first.dataset.version, first.dataset_dir.name) == ("v001", "v001")
    assert latest_artifact(loras) == "v002"


def test_consent_comes_first(world: World) -> None:
    world.dataset()
    world.persona = world.sign("other", scopes=frozenset({Scope.publish}))
    with pytest.raises(ConsentError):
        run(world)
    assert world.trainer.requests == []


def test_a_training_stops_at_the_step_after_the_consent_was_revoked(world: World) -> None:
    world.dataset()
    store, steps = PersonaStore(world.home), []

    class Slow:
        def train(self, request: TrainRequest, progress: Progress) -> Path:
            for step in range(10):
                steps.append(step)
                if step == 3:
                    store.save(revoked(request.persona, world.now.date()))
                progress.check_cancelled()
            raise AssertionError("it went on to the end")

    with pytest.raises(ConsentError, match="revoked"):
        train(
            world.persona, TrainOrder(), home=world.home, pack=world.pack, trainer=Slow(),
            progress=SilentProgress(), now=world.now,
        )  # fmt: skip
    assert steps == [0, 1, 2, 3]
    with pytest.raises(ConsentError, match="revoked"):
        run(world)


def test_without_a_dataset_the_hint_builds_one(world: World) -> None:
    with pytest.raises(NotFound) as missing:
        run(world)
    assert missing.value.hint == "oblik dataset build PHOTOS"
    with pytest.raises(NotFound, match="v009"):
        run(world, TrainOrder(dataset="v009"))


def test_a_stopped_run_is_resumed_in_its_folder_and_is_no_artifact(world: World) -> None:
    world.dataset()
    world.trainer = type(world.trainer)(stop_once=True)
    with pytest.raises(JobCancelled):
        run(world)
    with pytest.raises(NotFound, match="no trained LoRA"):
        latest_artifact(world.home.persona("sitter").loras)
    assert run(world, TrainOrder(resume=True)).name == "v001"
    assert world.trainer.requests[1].resume
    with pytest.raises(NotFound, match="no stopped training"):
        run(world, TrainOrder(resume=True))


def test_settings_out_of_range_are_refused_by_name(world: World) -> None:
    with pytest.raises(InvalidInput, match="rank"):
        config_for(world.pack.manifest, {"rank": 0})


def test_settings_are_understood_as_people_type_them(world: World) -> None:
    typed = {"targets": "attention, mlp", "dtype": "bf16", "ema": "0.99", "tensorboard": "yes", "steps": "9"}
    config = config_for(world.pack.manifest, typed)
    assert (config.targets, config.text_layers) == (ATTENTION_TARGETS + TARGETS["mlp"], 0)
    assert (config.dtype, config.ema, config.tensorboard, config.steps) == ("bfloat16", 0.99, True, 9)
    assert config_for(world.pack.manifest, {"targets": "attention,text"}).text_layers == 8
    assert config_for(world.pack.manifest, {"targets": "to_q"}).targets == ("to_q",)
    with pytest.raises(InvalidInput, match="a target besides the text encoder"):
        config_for(world.pack.manifest, {"targets": "text"})
    with pytest.raises(InvalidInput, match="no training setting 'warmup'; did you mean 'warmup_steps'"):
        config_for(world.pack.manifest, {"warmup": "3"})


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_after_its_manifest_is_ended_by_the_next_start(
    world: World, resume: bool
) -> None:
    world.dataset()
    made = run(world)
    log = TrainingLog.model_validate_json((made / CURVES).read_bytes())
    log.judgements = [
        Judgement(
            step=2, likeness=0.6, low=0.5, high=0.7, without=0.1, copied=0.0, allowed_copy=0.1, misses=0,
            passes=True,
        )
    ]  # fmt: skip
    atomic_write(made / CURVES, log.model_dump_json())
    atomic_write(made / "work" / "step-000002.pt", b"latents")
    assert run(world, TrainOrder(resume=resume)).name == ("v001" if resume else "v002")
    assert (made / CHOICE).is_file()
    assert not (made / "work").exists()
    assert len(world.trainer.requests) == (1 if resume else 2)


def test_a_resumed_run_keeps_the_settings_and_the_dataset_that_it_began_with(world: World) -> None:
    world.dataset()
    world.trainer = type(world.trainer)(stop_once=True)
    with pytest.raises(JobCancelled):
        run(world, TrainOrder(asked={"rank": 7, "steps": 9}))
    run(world, TrainOrder(asked={"learning_rate": 2e-5}, resume=True))
    first, second = world.trainer.requests
    assert (first.config.rank, second.config.rank, second.config.steps) == (7, 7, 9)
    assert second.config.learning_rate == 2e-5
    assert second.dataset.version == "v001"
    assert second.caches == world.home.persona("sitter").root / "caches"


def test_the_version_before_is_the_parent_of_the_next(world: World) -> None:
    world.dataset()
    run(world)
    run(world)
    assert [request.parent for request in world.trainer.requests] == [None, "v001"]


def test_a_judge_is_opened_only_for_a_run_that_makes_probes(world: World) -> None:
    world.dataset()
    asked: list[str] = []
    for every in (0, 2):
        train(
            world.persona, TrainOrder(asked={"sample_every": every}), home=world.home, pack=world.pack,
            trainer=world.trainer, progress=SilentProgress(), now=world.now, judges=asked.append,
        )  # fmt: skip
    assert asked == ["v001"]


def test_a_judge_that_refuses_leaves_no_run_behind(world: World) -> None:
    world.dataset()

    def refuses(_version: str) -> None:
        raise InvalidInput("no photo with a face is held out")

    with pytest.raises(InvalidInput):
        train(
            world.persona, TrainOrder(asked={"sample_every": 5}), home=world.home, pack=world.pack,
            trainer=world.trainer, progress=SilentProgress(), now=world.now, judges=refuses,
        )  # fmt: skip
    assert not (world.home.persona("sitter").loras / "v001").exists()
