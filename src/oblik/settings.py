"""Settings: defaults < ``oblik.toml`` < ``OBLIK_*`` environment < flags.

In: flags that a person typed. Out: one validated, frozen object, and for every value where it came
from. ``oblik.toml`` is looked for in the current folder and then in the home folder; the nearer one
wins. ``Settings(...)`` itself holds exactly what it is given; only ``Settings.load`` looks around.
Knows nothing of packs, devices or personas beyond their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from oblik.errors import InvalidInput
from oblik.paths import expanded

FILE_NAME = "oblik.toml"
ENV_PREFIX = "OBLIK_"


class Settings(BaseSettings):
    """What every command needs to know about this machine and its person."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_ignore_empty=True
    )

    home: Path = Field(
        Path("~/.oblik"), validate_default=True, description="Folder of everything Oblik keeps."
    )
    pack: str = Field(
        "miniature", min_length=1, description="Base model; `oblik pack list` names those that are installed."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N."
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads; unset leaves the choice to the libraries."
    )
    persona: str | None = Field(
        None, description="Persona to work for; unset means the one chosen by `persona use`."
    )

    face_stack: str = Field(
        "pack",
        min_length=1,
        description="Face stack: `pack` for the base model's own (`auraface` where it has none), the name "
        "of a pulled face pack, or `dlib` for photographs without a download.",
    )

    kohya_script_path: Path | None = Field(
        None, description="`train_network.py` of your checkout of sd-scripts, for `train --trainer kohya`."
    )
    kohya_workspace: Path | None = Field(
        None, description="Folder that sd-scripts runs in; unset means the script's own."
    )
    kohya_accelerate_bin: str | None = Field(
        None,
        description="`accelerate` of sd-scripts' environment; unset looks in the workspace, then in PATH.",
    )
    easy_diffusion_dir: Path | None = Field(
        None, description="Folder of Easy Diffusion, for `lora install --to easy-diffusion`."
    )
    comfyui_dir: Path | None = Field(None, description="Folder of ComfyUI, for `lora install --to comfyui`.")

    label_prompt: bool = Field(
        False, description="Write the prompt, and with it the persona's token, into the label of pictures."
    )
    content_credentials: bool = Field(
        False, description="Sign pictures with C2PA content credentials (needs `oblik[c2pa]`)."
    )

    log_days: int = Field(30, ge=30, description="Days that the log is kept, at least 30.")
    log_mib: int = Field(
        256, ge=8, description="Most MiB of the log; days beyond the first 30 go before it grows further."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("home", "kohya_script_path", "kohya_workspace", "easy_diffusion_dir", "comfyui_dir")
    @classmethod
    def _whole_path(cls, value: Path | None) -> Path | None:
        return value if value is None else expanded(str(value)).absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @classmethod
    def load(cls, **flags: Any) -> Settings:
        """Read every source; a flag that is None was not given.

        Raises:
            InvalidInput: a value out of range, an unknown name or broken TOML, naming where it stands.
        """
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}

        def add(found: dict[str, Any], source: str) -> None:
            for name in found.keys() - values.keys():
                values[name] = found[name]
                origins[name] = source.format(name=name, NAME=name.upper())

        add({name: value for name, value in flags.items() if value is not None}, "--{name}")
        add(EnvSettingsSource(cls)(), ENV_PREFIX + "{NAME}")
        here = Path.cwd() / FILE_NAME
        add(_read_toml(cls, here), _braced(here))
        at_home = cls._checked({"home": values["home"]} if "home" in values else {}, origins).home / FILE_NAME
        if at_home != here:
            add(_read_toml(cls, at_home), _braced(at_home))
        settings = cls._checked(values, origins)
        settings._origins.update(origins)
        return settings

    @classmethod
    def _checked(cls, values: dict[str, Any], origins: dict[str, str]) -> Settings:
        try:
            return cls(**values)
        except ValidationError as problem:
            first = problem.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            where = origins.get(name, "a default")
            raise InvalidInput(
                f"setting {name!r} from {where}: {first['msg']}", hint=_way_out(where)
            ) from problem


def origins(settings: Settings) -> dict[str, str]:
    """For every setting, where its value came from: ``default``, a file, a variable, a flag."""
    return {name: settings._origins.get(name, "default") for name in type(settings).model_fields}


def _read_toml(cls: type[BaseSettings], path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = TomlConfigSettingsSource(cls, path)()
    except ValueError as problem:
        raise InvalidInput(f"{path} is not valid TOML: {problem}", hint=f"correct {path}") from problem
    return {name: value for key, part in found.items() for name, value in _flat(key, part).items()}


def _way_out(where: str) -> str:
    """What to do about a value that stands there; every command, doctor too, reads it first."""
    if where.startswith(ENV_PREFIX):
        return f"unset {where}, or give it a value of docs/settings.md"
    return "oblik --help" if where.startswith("--") else f"correct {where}; docs/settings.md has the values"


def _flat(key: str, part: Any) -> dict[str, Any]:
    """A table ``[kohya]`` with ``workspace`` is the setting ``kohya_workspace``."""
    return {f"{key}_{name}": value for name, value in part.items()} if isinstance(part, dict) else {key: part}


def _braced(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")
