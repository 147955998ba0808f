"""The daily report by itself: a timer of the system, no process of ours that waits.

In: the home folder, which system this is. Out: on Linux with systemd a user timer, begun; elsewhere the one
line that a person types (cron, the Task Scheduler). Each night ``oblik report --due`` writes the reports of
the days that have none yet, and removes log files that have been kept long enough. Knows nothing of reports.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oblik.paths import atomic_write

NAME, AT = "oblik-report", "00:10"
SERVICE = """[Unit]
Description=Oblik: reports of the days that have none yet

[Service]
Type=oneshot
ExecStart={command}
"""
TIMER = f"""[Unit]
Description=Oblik: a report every night

[Timer]
OnCalendar=*-*-* {AT}:00
Persistent=true

[Install]
WantedBy=timers.target
"""
Run = Callable[[Sequence[str]], bool]


def runs(command: Sequence[str]) -> bool:
    """Run a command; whether it went well."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def system_here() -> str:
    """ "systemd", "windows", or "cron" for every other system."""
    if os.name == "nt":
        return "windows"
    return "systemd" if sys.platform == "linux" and shutil.which("systemctl") else "cron"


@dataclass(frozen=True)
class Scheduler:
    """The timer of one system. ``units`` is where systemd looks for a person's own units."""

    system: str = field(default_factory=system_here)
    units: Path = field(
        default_factory=lambda: (
            Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd/user"
        )
    )
    run: Run = runs
    python: str = sys.executable

    def schedule(self, home: Path) -> list[str]:
        """Have a report written every night; what was done, or what is to be typed, line by line."""
        command = [self.python, "-m", "oblik", "--home", str(home), "report", "--due"]
        if self.system == "windows":
            task = subprocess.list2cmdline(command).replace('"', '\\"')
            return ["type:", f'schtasks /Create /TN {NAME} /SC DAILY /ST {AT} /TR "{task}"']
        if self.system == "cron":
            hour, minute = AT.split(":")
            line = f"{int(minute)} {int(hour)} * * * {shlex.join(command)}".replace("%", "\\%")
            return ["add this line with crontab -e:", line]
        files = {
            self.units / f"{NAME}.service": SERVICE.format(command=" ".join(map(_quoted, command))),
            self.units / f"{NAME}.timer": TIMER,
        }
        for path, text in files.items():
            atomic_write(path, text)
        return [*map(str, files), *self._systemctl("enable", "--now", f"{NAME}.timer")]

    def unschedule(self) -> list[str]:
        """Take `schedule` back."""
        if self.system == "windows":
            return ["type:", f"schtasks /Delete /TN {NAME} /F"]
        if self.system == "cron":
            return ["remove the line that ends with 'report --due' with crontab -e"]
        files = [self.units / f"{NAME}.timer", self.units / f"{NAME}.service"]
        if not any(path.exists() for path in files):
            return ["no report is scheduled"]
        said = self._systemctl("disable", "--now", f"{NAME}.timer")
        for path in files:
            path.unlink(missing_ok=True)
        return [*(f"removed {path}" for path in files), *said]

    def _systemctl(self, *words: str) -> list[str]:
        """Tell systemd; where it cannot be reached (no session), what is to be typed."""
        wanted = [["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", *words]]
        if words[0] == "disable":
            wanted.reverse()
        done = [self.run(command) for command in wanted]
        if all(done):
            return [f"{words[0]}d: every night at {AT}" if words[0] == "enable" else "disabled"]
        return ["systemd could not be reached; type:", *map(shlex.join, wanted)]


def _quoted(word: str) -> str:
    """A word of an ExecStart line (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
