"""`oblik lora`, as typed, from a finished LoRA to its copies and back; and what needs consent."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from oblik.cli import main
from oblik.datasets.manifest import Dataset
from oblik.paths import Home, atomic_write
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.personas.store import PersonaStore
from oblik.training.artifact import CURVES, MANIFEST, WEIGHTS, LoraArtifact, LossPoint, TrainingLog
from oblik.training.config import TrainConfig

Oblik = Callable[..., Result]
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture
def oblik(home: Home, tiny_pack: Path) -> Oblik:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home.root), "--pack", "tiny", *arguments])

    return run


@pytest.fixture(autouse=True)
def two_loras(home: Home, tiny_pack: Path) -> None:
    """The persona ``subject`` with two finished LoRAs on a pack that may not be sold."""
    manifest = json.loads((tiny_pack / "pack.json").read_text(encoding="utf-8"))
    manifest["components"]["vae"]["commercial_use"] = False
    (tiny_pack / "pack.json").write_text(json.dumps(manifest), encoding="utf-8")
    store = PersonaStore(home)
    persona = make_persona("subject", synthetic_consent(NOW.date()), NOW, trigger=None, descriptors={})
    store.create(persona)
    store.use("subject")
    for version, steps in (("v001", 20), ("v002", 40)):
        folder = home.persona("subject").loras / version
        header = {"diffusion_model.a.alpha": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        text = json.dumps(header).encode()
        atomic_write(folder / WEIGHTS, struct.pack("<Q", len(text)) + text + struct.pack("<f", steps))
        losses = [
            LossPoint(step=n, train=1 / n, validation=0.5 if n == steps else None)
            for n in range(1, steps + 1)
        ]
        atomic_write(folder / CURVES, TrainingLog(losses=losses).model_dump_json())
        known: dict[str, Any] = {
            "token_id": 7,
            "class_noun": "person",
            "rank": 16,
            "alpha": 16,
            "targets": ("a",),
        }
        artifact = LoraArtifact(
            persona="subject", version=version, pack="tiny", pack_version="3", dataset="v001",
            dataset_sha256="d" * 64, consent_sha256="c" * 64, trigger=persona.trigger, steps=steps,
            config=TrainConfig(steps=steps), created_at=NOW, seconds=9, weights_sha256="w" * 64,
            token_sha256="t" * 64, libraries={"torch": "2"}, **known,
        )  # fmt: skip
        atomic_write(folder / MANIFEST, artifact.model_dump_json())


def test_list_show_compare_use(oblik: Oblik) -> None:
    lines = [line.split() for line in oblik("lora", "list").output.splitlines()]
    assert lines[0][:2] == ["v001", "2026-01-02"]
    assert lines[2][:2] == ["*", "v002"]
    assert oblik("lora", "use", "v001").output == "in use: v001\n"
    shown = oblik("lora", "show").output
    assert "v001 of subject, in use" in shown
    assert "held-out loss  0.5000 at step 20" in shown
    for line in ("checkpoint     the last", "parent         none", "VRAM           not measured"):
        assert f"{line}\n" in shown
    assert "test           not tested\n" in shown
    compared = [line.split() for line in oblik("lora", "compare", "v001", "v002").output.splitlines()]
    assert ["config.steps", "20", "40"] in compared
    assert oblik("lora", "use", "newest").output == "in use: v002\n"
    absent = oblik("lora", "show", "v009")
    assert (absent.exit_code, "hint: oblik lora list" in absent.output) == (2, True)


def test_installed_and_gone_with_the_person(oblik: Oblik, tmp_path: Path) -> None:
    folder = tmp_path / "ComfyUI" / "models" / "loras"
    folder.mkdir(parents=True)
    done = oblik("lora", "install", "--to", str(tmp_path / "ComfyUI"))
    copy = folder / "subject-v002.safetensors"
    assert done.exit_code == 0, done.output
    assert str(copy) in done.output
    assert "note: licence of vae: Apache-2.0, commercial use NOT allowed" in done.output
    assert copy.is_file()
    assert oblik("lora", "export", "v001", str(tmp_path / "out"), "--format", "kohya").exit_code == 0
    gone = oblik("persona", "delete", "subject", "--yes", "subject")
    assert gone.exit_code == 0, gone.output
    assert not copy.exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_uninstall_says_what_became_of_each_copy(oblik: Oblik, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    oblik("lora", "install", "v001", "--to", str(tmp_path / "lora"))
    assert oblik("lora", "uninstall", "v002").output == "no copy is known\n"
    assert oblik("lora", "uninstall", "v001").output.endswith("subject-v001.safetensors: removed\n")
    assert list((tmp_path / "lora").iterdir()) == []


def test_without_consent_nothing_leaves_but_copies_can_be_taken_back(oblik: Oblik, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    oblik("lora", "install", "--to", str(tmp_path / "lora"))
    oblik("persona", "revoke", "subject")
    for arguments in (("install", "--to", str(tmp_path / "lora")), ("export", "v001", str(tmp_path / "out"))):
        refused = oblik("lora", *arguments)
        assert (refused.exit_code, "revoked" in refused.output) == (2, True), refused.output
    assert not (tmp_path / "out").exists()
    assert "removed" in oblik("lora", "uninstall").output
    assert "lora install" in oblik("audit", "show", "--persona", "subject").output


def test_a_program_that_is_not_set_says_which_setting(oblik: Oblik) -> None:
    refused = oblik("lora", "install", "--to", "easy-diffusion")
    assert refused.exit_code == 2
    assert "easy_diffusion_dir is not set" in refused.output


def test_kohya_is_asked_for_by_name_and_refuses_qwen_image(
    oblik: Oblik, home: Home, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = home.persona("subject")
    dataset = Dataset(
        persona="subject", version="v001", trigger="<oblik_subject>", class_noun="person", created_at=NOW,
        consent_sha256="c" * 64, face_stack="none", short_side_px=32, embeddings="", photos=[],
    )  # fmt: skip
    atomic_write(folders.datasets / "v001" / "dataset.json", dataset.model_dump_json())
    refused = oblik("train", "--trainer", "kohya")
    assert refused.exit_code == 2
    assert "sd-scripts cannot train the pack 'tiny' of the family 'qwen_image'" in refused.output
    assert "hint: oblik train --trainer native" in refused.output
    assert not (folders.loras / "v003").exists()
    assert "hint: known: kohya, native" in oblik("train", "--trainer", "kojya").output
    manifest = json.loads((tiny_pack / "pack.json").read_text(encoding="utf-8")) | {
        "family": "stable_diffusion"
    }
    (tiny_pack / "pack.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tiny_pack / "model_index.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("OBLIK_KOHYA_SCRIPT_PATH", str(tmp_path / "train_network.py"))
    absent = oblik("train", "--trainer", "kohya")
    assert absent.exit_code == 3
    assert f"there is no train_network.py in {tmp_path}" in absent.output
