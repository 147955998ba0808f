"""The command line: global options, errors with hints, exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oblik.cli import COMMANDS, LazyGroup, main
from oblik.errors import NotFound, OblikError, OutOfMemory
from oblik.settings import Settings


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:
    return CliRunner(env={"OBLIK_HOME": str(tmp_path / "home")})


class GroupThat(LazyGroup):
    """The real group with one more command, ``act``, reached as the real ones are."""

    def __init__(self, act: click.Command) -> None:
        super().__init__(main.name, callback=main.callback, params=main.params)
        self._act = act

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._act if cmd_name == "act" else super().get_command(ctx, cmd_name)


def test_help_lists_every_command_with_its_line() -> None:
    shown = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    for name, line in COMMANDS.items():
        assert f"{name} {line}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_says_the_same(name: str) -> None:
    command = import_module(f"oblik.cli.{name}").command
    assert isinstance(command, click.Command)
    assert (command.help or "").splitlines()[0].strip() == COMMANDS[name]


def test_settings_reach_the_command(runner: CliRunner, tmp_path: Path) -> None:
    seen: list[Settings] = []

    @click.command()
    @click.pass_obj
    def act(settings: Settings) -> None:
        seen.append(settings)

    result = runner.invoke(GroupThat(act), ["--threads", "2", "--persona", "sitter", "act"])
    assert result.exit_code == 0, result.output
    assert (seen[0].threads, seen[0].persona, seen[0].home) == (2, "sitter", tmp_path / "home")
    assert (os.environ["OMP_NUM_THREADS"], os.environ["HF_HUB_OFFLINE"]) == ("2", "1")


@pytest.mark.parametrize(("error", "status"), [(NotFound, 2), (OutOfMemory, 3)])
def test_an_error_is_two_lines_and_a_status(error: type[OblikError], status: int, runner: CliRunner) -> None:
    @click.command()
    def act() -> None:
        raise error("what went wrong", hint="oblik doctor")

    result = runner.invoke(GroupThat(act), ["act"])
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == "error: what went wrong\nhint: oblik doctor\n"


def test_ctrl_c_is_a_cancelled_job(runner: CliRunner) -> None:
    @click.command()
    def act() -> None:
        raise KeyboardInterrupt

    result = runner.invoke(GroupThat(act), ["act"])
    assert result.exit_code == 4
    assert result.stderr.startswith("error: stopped\nhint: ")


def test_a_bad_setting_is_an_error_with_a_hint(tmp_path: Path) -> None:
    result = CliRunner(env={"OBLIK_THREADS": "none"}).invoke(main, ["doctor"])
    assert result.exit_code == 2
    assert re.match(r"error: setting 'threads' from OBLIK_THREADS: .*\nhint: ", result.stderr)


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = CliRunner().invoke(main, ["docter"])
    assert result.exit_code == 2
    assert "did you mean 'doctor'?" in result.stderr
    assert "No such command 'xyzzy'" in CliRunner().invoke(main, ["xyzzy"]).stderr


def test_the_module_runs_as_a_program() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "oblik", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"oblik, version \d+\.\d+\.\d+\n", answer.stdout)
