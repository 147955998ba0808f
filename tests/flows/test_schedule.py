"""The nightly report: systemd's own files where there is systemd, elsewhere the line to type."""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Sequence
from pathlib import Path

from oblik.flows.schedule import NAME, Scheduler


def test_systemd_gets_a_timer_that_is_begun_and_taken_back(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> bool:
        asked.append(list(command))
        return True

    desk = Scheduler("systemd", tmp_path / "units", run, "/opt/my env/python")
    said = desk.schedule(tmp_path / "100% home$")
    units = {}
    for kind in ("service", "timer"):
        units[kind] = configparser.ConfigParser(interpolation=None)
        units[kind].read(tmp_path / "units" / f"{NAME}.{kind}")
    line = units["service"]["Service"]["ExecStart"]
    assert shlex.split(line.replace("%%", "%").replace("$$", "$")) == [
        "/opt/my env/python", "-m", "oblik", "--home", str(tmp_path / "100% home$"), "report", "--due",
    ]  # fmt: skip
    assert line.count("%%") == line.count("$$") == 1, "what systemd would replace is doubled"
    assert units["timer"]["Timer"]["Persistent"] == "true"
    assert units["timer"]["Install"]["WantedBy"] == "timers.target"
    assert asked == [["systemctl", "--user", "daemon-reload"],
                     ["systemctl", "--user", "enable", "--now", f"{NAME}.timer"]]  # fmt: skip
    assert said[-1] == "enabled: every night at 00:10"
    desk.unschedule()
    assert list((tmp_path / "units").iterdir()) == []
    assert asked[2] == ["systemctl", "--user", "disable", "--now", f"{NAME}.timer"]
    assert desk.unschedule() == ["no report is scheduled"]


def test_where_systemd_cannot_be_reached_it_is_said_what_to_type(tmp_path: Path) -> None:
    said = Scheduler("systemd", tmp_path, lambda _command: False).schedule(tmp_path)
    assert said[-1] == f"systemctl --user enable --now {NAME}.timer"


def test_cron_and_windows_get_a_line(tmp_path: Path) -> None:
    line = Scheduler("cron", python="/usr/bin/python3").schedule(Path("/home/50% off"))[1]
    assert line == r"10 0 * * * /usr/bin/python3 -m oblik --home '/home/50\% off' report --due"
    line = Scheduler("windows", python="C:\\Program Files\\python.exe").schedule(Path("D:/oblik"))[1]
    assert line.startswith(f'schtasks /Create /TN {NAME} /SC DAILY /ST 00:10 /TR "\\"C:\\Program Files')
    assert "report --due" in line
    assert Scheduler("windows").unschedule()[1] == f"schtasks /Delete /TN {NAME} /F"
