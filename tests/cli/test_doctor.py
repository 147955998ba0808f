"""``oblik doctor``: every setting with its origin, ok and missing, the next command; no tensors."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oblik.cli import main
from oblik.cli.doctor import existing, installed, nvidia_gpus, unknown_variables, usable_cores
from oblik.paths import Home


def run(home: Home, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, ["--home", str(home.root), *arguments, "doctor"])


def test_each_setting_is_shown_with_its_origin(home: Home) -> None:
    lines = [line.split() for line in run(home, "--threads", "2", OBLIK_DEVICE="cpu").output.splitlines()]
    assert ["threads", "2", "--threads"] in lines
    assert ["device", "cpu", "OBLIK_DEVICE"] in lines
    assert ["pack", "miniature", "default"] in lines


def test_a_whole_pack_is_ok_and_a_broken_one_says_what_to_do(home: Home, tiny_pack: Path) -> None:
    shown = run(home, "--pack", "tiny")
    assert shown.exit_code == 0, shown.output
    assert ["ok", "tiny", "3,", "128", "px"] in [line.split() for line in shown.output.splitlines()]
    (tiny_pack / "vae" / "model.bin").unlink()
    broken = run(home, "--pack", "tiny")
    assert broken.exit_code == 3
    assert "vae/model.bin is missing" in broken.output
    assert "  oblik pack verify tiny\n" in broken.output


def test_a_pack_that_is_not_there_is_missing(home: Home) -> None:
    result = run(home, "--pack", "absent")
    assert result.exit_code == 3
    assert "named by the settings, not installed" in result.output


def test_an_extra_names_the_command_that_installs_it(home: Home) -> None:
    shown = run(home).output
    for name in ("dlib", "gpu"):
        line = next(line for line in shown.splitlines() if line.split()[1:2] == [name])
        assert line.startswith("ok") or f"pip install 'oblik[{name}]'" in line


def test_versions_are_read_without_importing_torch(home: Home) -> None:
    code = (
        "import sys; from oblik.cli import main\n"
        f"main(['--home', {str(home.root)!r}, 'doctor'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AssertionError" not in answer.stderr
    assert f"torch {installed('torch')}" in " ".join(answer.stdout.split())
    assert not home.root.exists(), "looking must not create the home folder"


def test_a_variable_that_names_no_setting_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBLIK_TREADS", "2")
    monkeypatch.setenv("OBLIK_THREADS", "2")
    assert unknown_variables() == ["OBLIK_TREADS names no setting"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for the driver's program")
def test_gpus_are_what_the_driver_says(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Big GPU, 16384 MiB, 600.1'\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert nvidia_gpus() == ["Big GPU, 16384 MiB, 600.1"]
    assert "Big GPU" in run(home).output
    program.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert nvidia_gpus() == []


def test_small_measures(tmp_path: Path) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert (installed("click") or "").count(".") == 2
    assert installed("no-such-distribution") is None
