"""Commands in the README, in docs/ and in hints exist; links between pages lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from oblik.cli import main
from oblik.cli.docs import context_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(?:\$ )?(?:\S*[/\\])?oblik(?: |$)")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def wrong_with(line: str) -> str:
    """Why a command line could not be typed as it stands; empty when it could."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = main
    context = context_of(main, "oblik", None)
    known = options_of(main)
    while words:
        word = words.pop(0)
        if word.startswith("-") and len(word) > 1:
            name = word.partition("=")[0]
            if name not in known:
                return f"{context.command_path} has no option {name}"
            if known[name] and "=" not in word and words:
                words.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return f"{context.command_path} has no command {word}"
            command, context = found, context_of(found, word, context)
            known = options_of(command)
    return ""


def options_of(command: click.Command) -> dict[str, bool]:
    """Option names, and whether each takes a value."""
    found = {"--help": False, "-h": False}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *parameter.secondary_opts]
            found |= dict.fromkeys(names, not parameter.is_flag and not parameter.count)
    return found


def lines_of(page: Path) -> Iterator[str]:
    """Lines of shell blocks, with continued lines joined, and of indented blocks."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        if language in ("", "sh", "bash", "shell", "console", "powershell"):
            yield from re.sub(r"[\\`]\n\s*", " ", block).splitlines()
    yield from (line[4:] for line in FENCE.sub("", text).splitlines() if line.startswith("    "))


def hinted() -> Iterator[tuple[str, str]]:
    """Commands in the hints of the sources, with where they stand; inserted values end a command."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                for command in re.findall(r"\boblik(?: (?:--)?[a-z][a-z-]*)+", text_of(node.value)):
                    yield f"{path.relative_to(ROOT)}:{node.value.lineno}", command


def text_of(node: ast.expr) -> str:
    """The text of a string or f-string, with ``{}`` for what is inserted."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_can_be_typed(page: Path) -> None:
    commands = [line.strip() for line in lines_of(page) if PROGRAM.match(line.strip())]
    problems = {line: wrong_with(line.removeprefix("$ ")) for line in commands}
    assert {line: problem for line, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_of_a_page_exist(page: Path) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    used = {match for line in lines_of(page) for match in re.findall(r"^(?:\$ )?make ([a-z]+)", line.strip())}
    assert used <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in targets if not (page.parent / link).exists()] == []


def test_hints_name_commands_that_exist() -> None:
    found = list(hinted())
    assert found
    assert [(where, command) for where, command in found if wrong_with(command)] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("oblik doctor", ""),
        ("oblik --threads 2 doctor", ""),
        (".venv/bin/oblik --threads=2 pack verify miniature  # reads every file", ""),
        ("oblik dokter", "oblik has no command dokter"),
        ("oblik pack delete", "oblik pack has no command delete"),
        ("oblik pack list --all", "oblik pack list has no option --all"),
    ],
)
def test_the_check_itself(line: str, problem: str) -> None:
    assert wrong_with(line) == problem
