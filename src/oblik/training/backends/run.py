"""One training from the first step, or the last checkpoint, to the artifact.

In: a `TrainRequest`, an open pipeline. Out: the artifact's folder. Step ``n`` draws its batch and its noise
from ``(seed, n)``, so a run that was killed goes on to the same weights. Knows nothing of what is computed in
a step.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from oblik.diffusion.device import give_back_memory
from oblik.diffusion.families.family import open_family
from oblik.errors import ConsentError, InvalidInput, JobCancelled, TrainingDiverged
from oblik.packs import memory_plan
from oblik.paths import private_dir
from oblik.personas.trigger import write_tokenizer
from oblik.progress import Progress
from oblik.training.artifact import TOKENIZER, WORK, LossPoint, TrainingLog
from oblik.training.backends import probe
from oblik.training.backends.caches import Caches
from oblik.training.backends.checkpoints import Checkpoints
from oblik.training.backends.interrupts import asked_to_stop
from oblik.training.backends.learner import Learner
from oblik.training.backends.metrics import Metrics
from oblik.training.backends.optimisers import RETRY, Stage, copy_into
from oblik.training.backends.pictures import Shelf, open_shelf
from oblik.training.backends.writing import write_artifact
from oblik.training.judge import best
from oblik.training.trainer import TrainRequest

TITLES = {"words": "learn the word", "network": "train LoRA"}
STRUCTURE = ("rank", "targets", "text_layers", "text_rank", "optimiser")
"""Settings that a run can't change half-way."""
GROWTH_WINDOW, GROWTH = 20, 4.0


class Planned(NamedTuple):
    """The memory plan of a run, whom to tell which stage begins, and what was given up before."""

    plan: memory_plan.MemoryPlan
    enter: Callable[[memory_plan.Stage], None]
    notes: list[str]


class Run:
    """The state of one run."""

    def __init__(
        self, request: TrainRequest, pipeline: Any, progress: Progress, planned: Planned | None = None
    ) -> None:
        self.planned = planned
        self.request, self.config, self.progress = request, request.config, progress
        self.out_dir = private_dir(request.out_dir)
        self.token_id = self._add_token(pipeline)
        self.family = open_family(request.pack.manifest.family, pipeline)
        choice = planned.plan.configuration if planned else None
        self.learner = Learner(request, self.family, self.token_id, choice)
        self.checkpoints = Checkpoints(self.out_dir / WORK)
        self.caches = Caches(request.caches or self.out_dir / WORK / "caches")
        self.log = TrainingLog(losses=[])
        self.seconds, self.total = 0.0, self.config.token_steps + self.config.steps

    def _add_token(self, pipeline: Any) -> int:
        """Write the tokenizers with the trigger added, give them to the pipeline; the token's id."""
        source, target = self.request.pack.tokenizer_file.parent, (self.out_dir / TOKENIZER).parent
        ids = set()
        for name in ("tokenizer", "tokenizer_2"):
            if getattr(pipeline, name, None) is not None:
                folder = target.with_name(name)
                ids.add(write_tokenizer(source.with_name(name), folder, self.request.persona.trigger))
                kind = type(getattr(pipeline, name))
                setattr(pipeline, name, kind.from_pretrained(folder, local_files_only=True))
        if len(ids) != 1:
            raise InvalidInput("the pack's tokenizers differ", hint="oblik pack verify")
        return ids.pop()

    def go(self) -> None:
        """Train and write the artifact."""
        start = self._resume() if self.request.resume else 0
        notes = self.planned.notes if self.planned else []
        self.log.replanned += [note for note in notes if note not in self.log.replanned]
        shelf = open_shelf(
            self.request.dataset, self.request.dataset_dir, self.request.pack, self.family, self.config,
            self.caches, self.progress,
        )  # fmt: skip
        if not self.config.sample_every:
            self.family.pipeline.vae = None  # all is encoded, and nothing will be decoded
        gc.collect()
        give_back_memory()
        self.metrics = Metrics(self.out_dir, self.family.device, self.total, start, self.config.tensorboard)
        for note in self.log.replanned:
            self.metrics.note_replanned(note)
        if start == 0:
            self._probe(0)
        with asked_to_stop() as asked:
            for stage in (self.learner.words, self.learner.network):
                if self._begin(stage, start, shelf):
                    self._go_through(stage, start, shelf, asked)
        self.metrics.close()
        chosen = self._choose()
        with self.learner.network.averaged() if chosen is None else nullcontext():
            write_artifact(self, chosen)

    def _begin(self, stage: Stage, start: int, shelf: Shelf) -> bool:
        """Make ready for a stage; False when it is already behind."""
        if start >= stage.first + stage.steps or self._has_settled():
            return False
        if stage is self.learner.network:
            self._enter("encode text")
            wanted = [*shelf.captions(), *probe.texts(self.request.persona, self.config.probe_images)]
            self.learner.freeze_words(wanted, self.caches)
        self._enter("train token" if stage is self.learner.words else "train transformer")
        self.learner.begin(stage)
        return True

    def _enter(self, stage: memory_plan.Stage) -> None:
        if self.planned:
            self.planned.enter(stage)

    def _go_through(self, stage: Stage, start: int, shelf: Shelf, asked: Callable[[], bool]) -> None:
        first = max(start, stage.first)
        with self.progress.stage(TITLES[stage.name], stage.steps) as advance:
            advance(first - stage.first)
            for step in range(first, stage.first + stage.steps):
                advance(1, self._step(stage, step, shelf))
                if self._has_settled():
                    return
                self._stop_if_asked(step + 1, asked)

    def _step(self, stage: Stage, step: int, shelf: Shelf) -> str:
        began, done = time.monotonic(), step + 1
        rng = np.random.default_rng([self.config.seed, step])
        noise = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        batch = shelf.draw(rng, self.config, prior=self.learner.keeps_prior(stage))
        losses = self.learner.learn(stage, step, batch, noise)
        point = LossPoint(step=done, train=losses.total, stage=stage.name, terms=losses.terms)
        self.log.losses.append(point)
        self._stop_if_growing(stage, done)
        judged = False
        with stage.averaged():
            if self._due(done, self.config.validate_every):
                point.validation = self.learner.validate(shelf.held_out)
            last = done == self.total or self._has_settled()
            if self.config.sample_every and (last or done % self.config.sample_every == 0):
                judged = self._probe(done)
        seconds = time.monotonic() - began
        self.seconds += seconds
        note = self.metrics.add(point, stage.rate(step, stage.groups[-1].peak), seconds)
        if judged or last or self._due(done, self.config.checkpoint_every):
            self._save(done)
        return note

    def _probe(self, step: int) -> bool:
        """Make the fixed pictures and have them judged; whether these weights are now the best."""
        if not self.config.sample_every:
            return False
        folder = probe.take(self.learner, step, self.out_dir)
        self.log.samples[step] = (folder / "grid.png").relative_to(self.out_dir).as_posix()
        if self.request.judge is None or step <= self.config.token_steps:
            return False
        judgement = self.request.judge(step, folder)
        self.log.judgements.append(judgement)
        if best(self.log.judgements) is not judgement:
            return False
        self.checkpoints.save_best(step, self.learner.network.parameters)
        return True

    def _choose(self) -> int | None:
        """Put the best judged weights in place; their step, None when the last ones are as good as any."""
        found = best(self.log.judgements)
        weights = self.checkpoints.load_best(found.step) if found else None
        if found is None or weights is None:
            return None
        copy_into(self.learner.network.parameters, weights)
        return found.step

    def _has_settled(self) -> bool:
        """Whether the loss on held-out photos has not become better for so long that nothing more comes."""
        measured = [
            p.validation for p in self.log.losses if p.stage == "network" and p.validation is not None
        ]
        if not self.config.patience or len(measured) <= self.config.patience:
            return False
        return min(measured[-self.config.patience :]) >= min(measured[: -self.config.patience])

    def _stop_if_growing(self, stage: Stage, done: int) -> None:
        """Raise TrainingDiverged when the last losses are far above those before."""
        if has_grown([p.train for p in self.log.losses if p.stage == stage.name]):
            self.checkpoints.forget_after(done - GROWTH_WINDOW)
            raise TrainingDiverged(f"the loss has grown since step {done - GROWTH_WINDOW}", hint=RETRY)

    def _stop_if_asked(self, done: int, asked: Callable[[], bool]) -> None:
        try:
            self.progress.check_cancelled()
            if asked():
                raise JobCancelled(f"stopped after step {done}", hint="oblik train --resume")
        except ConsentError:
            raise  # nothing more is kept of somebody who withdrew
        except BaseException:
            self._save(done)
            raise

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.total

    def _save(self, step: int) -> None:
        chosen = best(self.log.judgements)
        state = {
            "seconds": self.seconds,
            "log": self.log.model_dump_json(),
            "structure": self._structure(),
            "stages": {each.name: each.state() for each in (self.learner.words, self.learner.network)},
        }
        self.checkpoints.save(step, state, chosen.step if chosen else None)

    def _resume(self) -> int:
        found = self.checkpoints.load()
        if found is None:
            return 0
        was, now = json.loads(found["structure"]), json.loads(self._structure())
        changed = {name for name in STRUCTURE if was[name] != now[name]}
        if changed - ({"optimiser"} if self.planned else set()):
            raise InvalidInput(
                f"a stopped run keeps its {', '.join(STRUCTURE)}", hint="oblik train --resume, without them"
            )
        self.log, self.seconds = TrainingLog.model_validate_json(found["log"]), found["seconds"]
        for each in (self.learner.words, self.learner.network):
            state = found["stages"][each.name]
            if changed and each.optimiser:  # a smaller plan's: its running means start afresh
                state["optimiser"] = each.optimiser.state_dict()
            each.load(state)
        return int(found["step"])

    def _structure(self) -> str:
        return self.config.model_dump_json(include=set(STRUCTURE))


def has_grown(losses: Sequence[float]) -> bool:
    """Whether the median of the last 20 losses is more than four times that of all before."""
    if len(losses) < 2 * GROWTH_WINDOW:
        return False
    before, now = losses[:-GROWTH_WINDOW], losses[-GROWTH_WINDOW:]
    return statistics.median(now) > GROWTH * statistics.median(before)
