"""`oblik config test`, as typed; paths of the settings as people write them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oblik.cli import main
from oblik.settings import Settings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home is the working folder; Oblik's home lies in it."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("OBLIK_HOME", str(tmp_path / "oblik"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> Result:
    return CliRunner().invoke(main, ["config", "test"])


def test_what_is_not_set_is_no_mistake(here: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    marks = [line.split()[:2] for line in result.output.splitlines()]
    assert ["ok", "home"] in marks
    assert "not set  comfyui_dir" in result.output
    assert not (here / "oblik").exists(), "a test makes nothing"


def test_every_mistake_is_named_and_ends_with_status_2(here: Path) -> None:
    (here / "ComfyUI" / "models" / "loras").mkdir(parents=True)
    (here / "oblik.toml").write_text(
        'comfyui_dir = "~/ComfyUI"\neasy_diffusion_dir = "%USERPROFILE%/ed"\n'
        '[kohya]\nscript_path = "$HOME/sd-scripts/train_network.py"\n',
        encoding="utf-8",
    )
    result = run()
    assert result.exit_code == 2
    lines = {line.split()[1]: line for line in result.output.splitlines() if line[:2] in ("ok", "wr")}
    assert str(here / "ComfyUI" / "models" / "loras") in lines["comfyui_dir"]
    assert "GiB" in lines["comfyui_dir"]
    assert f"there is no folder {here / 'ed'}" in lines["easy_diffusion_dir"]
    assert "there is no such file" in lines["kohya.script_path"]
    assert "error: wrong: easy_diffusion_dir, kohya.script_path" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_folder_that_cannot_be_written_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trying, not by looking at modes; /proc takes no file from anybody."""
    if not Path("/proc/self").is_dir():
        pytest.skip("no folder here that even root cannot write to")
    (here / "comfy").mkdir()
    (here / "comfy" / "loras").symlink_to("/proc/self")
    monkeypatch.setenv("OBLIK_COMFYUI_DIR", str(here / "comfy"))
    result = run()
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_paths_as_people_write_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOM(1)", str(here / "room"))
    for typed, meant in {
        "~/a": here / "a", "$HOME/a": here / "a", "${HOME}/a": here / "a", "%USERPROFILE%/a": here / "a",
        "%ROOM(1)%/a": here / "room" / "a", "a": here / "a", "$NOT_SET/a": here / "$NOT_SET" / "a",
    }.items():  # fmt: skip
        assert Settings(comfyui_dir=Path(typed)).comfyui_dir == meant, typed
    monkeypatch.delenv("USERPROFILE")
    assert Settings(comfyui_dir=Path("%USERPROFILE%/a")).comfyui_dir == here / "a"


def test_a_table_is_part_of_the_name(here: Path) -> None:
    (here / "oblik.toml").write_text('[kohya]\naccelerate_bin = "acc"\n', encoding="utf-8")
    assert Settings.load().kohya_accelerate_bin == "acc"
