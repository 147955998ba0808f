"""Write requirements.lock: the exact versions that Oblik is tested with.

In: the packages installed beside this interpreter, and the requirements of pyproject.toml (runtime
and ``dev``). Out: ``name==version`` lines, one for each package that they need, directly or not, and
no other. Nothing is downloaded, and no address, path or build suffix (``+cpu``) is written.

    make lock                                             the versions in .venv
    python tools/lock.py --older report.json              and those for Python 3.10

The newest releases of some packages need Python 3.11. Where Python 3.10 gets an older version, both
are written with a marker; ``report.json`` comes from a Python 3.10 interpreter:

    python3.10 -m pip install --dry-run --ignore-installed --report report.json \
        -e '.[dev]' torch==2.13.0

What torch pins by itself for one platform (``nvidia-*``, ``cuda-*``, ``triton``) is left to it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OWN_NAME = "oblik"
PINNED_BY_TORCH = re.compile(r"(nvidia|cuda)-.*|triton")
HEADER = """\
# Exact versions, runtime and development. Written by `make lock` (tools/lock.py); do not edit.
"""


def installed_closure(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Versions of everything that ``name[extras]`` needs here, by canonical name."""
    found: dict[str, str] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        wanted = waiting.pop()
        if wanted in visited:
            continue
        visited.add(wanted)
        package = distribution(wanted[0])
        found[canonicalize_name(package.metadata["Name"])] = package.version.partition("+")[0]
        for line in package.requires or []:
            need = Requirement(line)
            if _applies(need, wanted[1]) and not PINNED_BY_TORCH.fullmatch(canonicalize_name(need.name)):
                waiting.append((need.name, frozenset(need.extras)))
    found.pop(canonicalize_name(name))
    return found


def reported(report: Path) -> dict[str, str]:
    """The same from a ``pip install --dry-run --report`` file."""
    packages = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    found = {canonicalize_name(p["name"]): str(p["version"]).partition("+")[0] for p in packages}
    return {n: v for n, v in found.items() if n != OWN_NAME and not PINNED_BY_TORCH.fullmatch(n)}


def merged(newer: dict[str, str], older: dict[str, str]) -> list[str]:
    """Lines in the order of names; a marker where the two Pythons differ."""
    lines = []
    for name in sorted(newer.keys() | older.keys()):
        if newer.get(name) == older.get(name):
            lines.append(f"{name}=={newer[name]}")
            continue
        if name in older:
            lines.append(f'{name}=={older[name]} ; python_version < "3.11"')
        if name in newer:
            lines.append(f'{name}=={newer[name]} ; python_version >= "3.11"')
    return lines


def kept_older(lock: Path) -> dict[str, str]:
    """What the present lock says for Python 3.10."""
    if not lock.is_file():
        return {}
    lines = [
        Requirement(line) for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()
    ]
    return {
        canonicalize_name(line.name): str(line.specifier).removeprefix("==")
        for line in lines
        if line.marker is None or line.marker.evaluate({"python_version": "3.10"})
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write requirements.lock.")
    parser.add_argument("--older", type=Path, help="pip report of a Python 3.10 interpreter")
    parser.add_argument("--output", type=Path, default=ROOT / "requirements.lock")
    options = parser.parse_args()
    try:
        newer = installed_closure(OWN_NAME, frozenset({"dev"}))
    except PackageNotFoundError as missing:
        print(f"error: {missing.name} is not installed\nhint: make lint", file=sys.stderr)
        return 1
    older = reported(options.older) if options.older else kept_older(options.output)
    options.output.write_text(HEADER + "\n".join(merged(newer, older or newer)) + "\n", encoding="utf-8")
    return 0


def _applies(need: Requirement, extras: frozenset[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})


if __name__ == "__main__":
    sys.exit(main())
