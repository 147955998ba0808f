"""The noun `OrderReport`: what became of an order, written beside its pictures after every batch.

In and out: plain values, ``generation_report.json``. The pictures' own records say how each was made; this
says what was asked, what is there, what failed, how long it took, and how the machine bore it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import InvalidInput
from oblik.generation.record import Picture, Step
from oblik.paths import atomic_write

FILE_NAME = "generation_report.json"
State = Literal["running", "done", "incomplete", "stopped"]


class Made(Picture):
    """One picture of an item. ``file`` is relative to the order's folder; ``seconds`` is its share of the
    time that its batch took; ``again`` marks one that an earlier run had finished."""

    item: str
    seconds: float
    again: bool = False


class Failure(BaseModel):
    """A picture that could not be made, and why."""

    model_config = ConfigDict(extra="forbid")

    item: str
    seed: int
    code: str
    message: str


class Change(BaseModel):
    """A degradation or a rung of the ladder, and for which folder of pictures."""

    model_config = ConfigDict(extra="forbid")

    folder: str
    step: Step


class Machine(BaseModel):
    """How the machine bore it; None is what could not be read.

    ``memory_bytes`` are this process's after each batch: flat when nothing is left behind.
    """

    model_config = ConfigDict(extra="forbid")

    hottest_c: float | None = None
    most_power_w: float | None = None
    most_vram_bytes: int | None = None
    memory_bytes: list[int] = Field(default_factory=list)
    rested_s: float = 0.0
    long_rests: int = 0


class OrderReport(BaseModel):
    """What became of an order. ``state``: done when every picture is there, incomplete when some failed,
    stopped when the run ended early; ``stopped_by`` is the error's code then."""

    model_config = ConfigDict(extra="forbid")

    name: str
    type: str
    persona: str | None
    pack: str
    lora: str | None
    order_sha256: str
    started_at: datetime
    seconds: float = 0.0
    state: State = "running"
    stopped_by: str = ""
    wanted: int
    pictures: list[Made] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)
    changes: list[Change] = Field(default_factory=list)
    machine: Machine = Field(default_factory=Machine)
    grid: str | None = None

    @property
    def made_now(self) -> list[Made]:
        return [picture for picture in self.pictures if not picture.again]

    @property
    def seconds_per_picture(self) -> float | None:
        """Mean over the pictures of this run, pauses not counted."""
        new = self.made_now
        return sum(picture.seconds for picture in new) / len(new) if new else None

    @property
    def sentence(self) -> str:
        """What became of it in one line."""
        again = len(self.pictures) - len(self.made_now)
        parts = [f"{len(self.pictures)} of {self.wanted} pictures"]
        parts += [f"{again} of them from before"] if again else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        parts += [f"stopped: {self.stopped_by}"] if self.stopped_by else []
        return ", ".join(parts)


def write_order_report(report: OrderReport, folder: Path) -> Path:
    """Write ``folder/generation_report.json`` and return its path."""
    path = folder / FILE_NAME
    atomic_write(path, report.model_dump_json(indent=2) + "\n")
    return path


def read_order_report(folder: Path) -> OrderReport | None:
    """The report in ``folder``; None where there is none. Raises InvalidInput when the file is damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return OrderReport.model_validate_json(path.read_bytes())
    except ValidationError as broken:
        raise InvalidInput(f"{path} is damaged: {broken.errors()[0]['msg']}", hint=f"remove {path}") from None
