"""Names become objects when asked for; what is missing says how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from oblik.errors import BackendUnavailable, NotFound
from oblik.registry import load

TABLE = {
    "join": "os.path:join",
    "absent": "no_such_package_at_all.inside:Thing",
    "typo": "os.path:no_such_name",
}


def test_a_name_in_the_table_gives_the_attribute() -> None:
    import os.path

    assert load("joiner", "join", TABLE) is os.path.join


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match="no joiner is called 'jion'") as caught:
        load("joiner", "jion", TABLE)
    assert caught.value.hint == "known: absent, join, typo"


def test_a_missing_package_gives_the_command_that_installs_it() -> None:
    with pytest.raises(BackendUnavailable, match="no_such_package_at_all") as caught:
        load("joiner", "absent", TABLE)
    assert caught.value.hint == "pip install no_such_package_at_all"
    with pytest.raises(BackendUnavailable) as caught:
        load("joiner", "absent", TABLE, {"absent": "gpu"})
    assert caught.value.hint == "pip install 'oblik[gpu]'"


def test_a_wrong_attribute_is_a_mistake_of_ours_and_not_hidden() -> None:
    with pytest.raises(AttributeError):
        load("joiner", "typo", TABLE)


def test_an_entry_point_serves_a_name_that_the_table_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "joiner_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: joiner-plugin\nVersion: 1.0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(
        "[oblik.joiner]\nplugged = os.path:split\njoin = os.path:dirname\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import os.path

    assert load("joiner", "plugged", TABLE) is os.path.split
    assert load("joiner", "join", TABLE) is os.path.join
