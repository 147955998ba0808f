"""A stage runs once for its inputs, again when they change or its results are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from oblik.errors import InvalidInput
from oblik.flows.ledger import Ledger, Result, folder_sha256


class Counting:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> Result:
        self.runs += 1
        return {"run": self.runs}


def intact(_: Result) -> bool:
    return True


def test_the_same_inputs_are_done_once_even_by_another_process(tmp_path: Path) -> None:
    work, file = Counting(), tmp_path / "stages.json"
    first, second = Ledger(file), Ledger(file)
    assert first.once("shoot", {"seed": 1}, work, intact=intact) == {"run": 1}
    assert (first.done, first.reused) == (["shoot"], [])
    second = Ledger(file)
    assert second.once("shoot", {"seed": 1}, work, intact=intact) == {"run": 1}
    assert (second.done, second.reused) == ([], ["shoot"])
    assert second.seconds.keys() == {"shoot"}


def test_other_inputs_and_lost_results_are_done_again(tmp_path: Path) -> None:
    work, ledger = Counting(), Ledger(tmp_path / "stages.json")
    ledger.once("shoot", {"seed": 1}, work, intact=intact)
    ledger.once("shoot", {"seed": 2}, work, intact=intact)
    ledger.once("shoot", {"seed": 2}, work, intact=lambda result: result["run"] > 2)
    assert work.runs == 3


def test_a_stage_that_did_not_end_is_known_as_interrupted(tmp_path: Path) -> None:
    def broken() -> Result:
        raise KeyboardInterrupt

    file = tmp_path / "stages.json"
    with pytest.raises(KeyboardInterrupt):
        Ledger(file).once("train", {"steps": 3}, broken, intact=intact)
    again = Ledger(file)
    assert again.interrupted("train", {"steps": 3})
    assert not again.interrupted("train", {"steps": 4})
    again.once("train", {"steps": 3}, Counting(), intact=intact)
    assert not again.interrupted("train", {"steps": 3})


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInput, match="damaged"):
        Ledger(tmp_path / "stages.json")


def test_a_folders_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = folder_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = folder_sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({before, renamed, folder_sha256(tmp_path)}) == 3
