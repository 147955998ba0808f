"""Defaults < oblik.toml at home < oblik.toml here < environment < flags, and each value's origin."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from oblik.errors import InvalidInput
from oblik.settings import Settings, origins


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an empty user's home."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "user"))
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults(tmp_path: Path) -> None:
    settings = Settings.load()
    assert settings.home == tmp_path / "user" / ".oblik"
    assert (settings.pack, settings.device, settings.threads, settings.persona) == (
        "miniature",
        "auto",
        None,
        None,
    )
    assert set(origins(settings).values()) == {"default"}


def test_every_source_wins_over_the_one_before(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home = write(
        tmp_path / "user" / ".oblik" / "oblik.toml", 'pack = "a"\ndevice = "cpu"\nthreads = 1\npersona = "a"'
    )
    nearer = write(here / "oblik.toml", 'pack = "b"\ndevice = "mps"\nthreads = 2')
    monkeypatch.setenv("OBLIK_DEVICE", "cuda:1")
    monkeypatch.setenv("OBLIK_PACK", "c")
    settings = Settings.load(pack="d")
    assert (settings.pack, settings.device, settings.threads, settings.persona) == ("d", "cuda:1", 2, "a")
    assert {name: origin for name, origin in origins(settings).items() if origin != "default"} == {
        "pack": "--pack",
        "device": "OBLIK_DEVICE",
        "threads": str(nearer),
        "persona": str(at_home),
    }


def test_the_home_file_is_looked_for_where_a_nearer_source_puts_home(tmp_path: Path, here: Path) -> None:
    write(here / "oblik.toml", 'home = "../elsewhere"')
    write(tmp_path / "elsewhere" / "oblik.toml", "threads = 7")
    settings = Settings.load()
    assert settings.home.resolve() == tmp_path / "elsewhere"
    assert settings.threads == 7


def test_a_flag_that_was_not_given_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBLIK_THREADS", "3")
    settings = Settings.load(threads=None)
    assert settings.threads == 3
    assert origins(settings)["threads"] == "OBLIK_THREADS"


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBLIK_PACK", "")
    assert Settings.load().pack == "miniature"


def test_settings_made_in_code_look_nowhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "oblik.toml", "threads = 5")
    monkeypatch.setenv("OBLIK_PACK", "other")
    settings = Settings(home=here)
    assert (settings.pack, settings.threads) == ("miniature", None)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().threads = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "0"), ("THREADS", "many"), ("DEVICE", "tpu"), ("DEVICE", "cuda:x")]
)
def test_a_bad_value_names_its_source(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"OBLIK_{name}", value)
    with pytest.raises(InvalidInput, match=f"'{name.lower()}' from OBLIK_{name}"):
        Settings.load()


def test_an_unknown_name_in_a_file_is_refused(here: Path) -> None:
    path = write(here / "oblik.toml", "treads = 5")
    with pytest.raises(InvalidInput, match="treads") as caught:
        Settings.load()
    assert str(path) in str(caught.value)


def test_broken_toml_names_the_file(here: Path) -> None:
    path = write(here / "oblik.toml", "threads = = 5")
    with pytest.raises(InvalidInput) as caught:
        Settings.load()
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_what_to_do_about_a_bad_value_is_no_command_that_reads_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OBLIK_LOG_DAYS", "3")
    with pytest.raises(InvalidInput) as refused:
        Settings.load()
    assert refused.value.hint.startswith("unset OBLIK_LOG_DAYS")
