"""``oblik train``, as typed, when the training went well and something beside it did not."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from oblik import studio
from oblik.cli import main
from oblik.errors import NotFound
from oblik.paths import Home
from oblik.training.artifact import LoraArtifact
from oblik.training.config import TrainConfig

ARTIFACT = LoraArtifact(
    persona="subject", version="v004", pack="tiny", pack_version="3", dataset="v001", dataset_sha256="",
    consent_sha256="", trigger="<oblik_subject>", token_id=7, class_noun="person", rank=16, alpha=16,
    targets=("a",), steps=20, config=TrainConfig(steps=20), seconds=9,
    created_at=datetime(2026, 1, 2, tzinfo=timezone.utc), weights_sha256="", token_sha256="", libraries={},
)  # fmt: skip


def trained(home: Home, monkeypatch: pytest.MonkeyPatch, *arguments: str, **changed: Any) -> Result:
    """The command after a training that made an artifact, on a machine where nothing can be tested."""

    def train(*_: object, **__: object) -> studio.Trained:
        return studio.Trained(ARTIFACT.model_copy(update=changed), Path("loras/v004"))

    def accept(*_: object, **__: object) -> studio.Accepted:
        raise NotFound("pack 'tiny' brings no faces of other people", hint="oblik likeness impostors FOLDER")

    monkeypatch.setattr(studio, "caution", lambda *_: "")
    monkeypatch.setattr(studio, "train", train)
    monkeypatch.setattr(studio, "accept", accept)
    return CliRunner().invoke(main, ["--home", str(home.root), "train", *arguments])


def test_a_lora_that_cannot_be_tested_is_trained_all_the_same(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = trained(home, monkeypatch)
    assert done.exit_code == 0
    note = " ".join(done.stderr.split())
    assert note == (
        "note: not tested: pack 'tiny' brings no faces of other people; oblik likeness impostors FOLDER, "
        "then: oblik likeness accept --version v004"
    )
    assert "oblik generate" in done.stdout
    assert trained(home, monkeypatch, "--no-accept").stderr == ""


@pytest.mark.parametrize(("passed", "said"), [(None, False), (True, False), (False, True)])
def test_that_no_checkpoint_passed_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch, passed: bool | None, said: bool
) -> None:
    done = trained(home, monkeypatch, "--no-accept", passed=passed)
    assert ("note: no checkpoint passed the guards" in done.stderr) is said


def test_settings_reach_the_training_and_a_flag_wins(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(*_: object, asked: dict[str, Any], **__: object) -> studio.Trained:
        seen.update(asked)
        return studio.Trained(ARTIFACT, Path("loras/v004"))

    monkeypatch.setattr(studio, "caution", lambda *_: "")
    monkeypatch.setattr(studio, "train", train)

    def typed(*words: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home.root), "train", "--no-accept", *words])

    more = ["--set", "ema=0.99", "--set", "prior-share=0.4", "--set", "rank=8"]
    assert typed(*more, "--rank", "4", "--size", "512").exit_code == 0
    assert seen == {"ema": "0.99", "prior_share": "0.4", "rank": 4, "size_px": 512}
    assert "is not NAME=VALUE" in typed("--set", "ema").stderr
