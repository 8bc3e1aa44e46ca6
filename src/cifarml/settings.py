"""Where things are on this machine and in Azure: what the environment and settings files say.

The first that names a setting wins: an argument, the variable ``CIFARML_<NAME>``, the variable
``AZURE_<NAME>`` (for what lies in Azure), the nearest ``cifarml.toml``, Azure ML's ``config.json``,
the default. docs/settings.md has the table.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cifarml.cifar10 import ARCHIVE_URL
from cifarml.config_files import WORKSPACE, read_toml, read_workspace, redact
from cifarml.errors import SettingsError


def _check_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path can't hold a NUL character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder") from error


def _check_account(text: str) -> str:
    """Accept the name of a storage account, or the https URL of its blob endpoint."""
    if re.fullmatch(r"[a-z0-9]{3,24}", text):
        return text
    if "?" in text or ";" in text or "@" in text:
        raise ValueError(
            "must be a name or a plain URL, without a secret in it. A SAS token goes into "
            "AZURE_STORAGE_SAS_TOKEN, a connection string into AZURE_STORAGE_CONNECTION_STRING"
        )
    try:
        url = urlsplit(text)
        usable = url.scheme == "https" and bool(url.hostname) and url.port != 0 and "#" not in text
        usable = usable and text.isascii() and not re.search(r"[\s\\\x00-\x20\x7f]", text)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "must be a storage account's name, 3 to 24 lower-case letters and digits, or the https URL of "
            f"its blob endpoint. Received: {redact(text)}"
        )
    if ".blob." in (url.hostname or "") and url.path.strip("/"):
        raise ValueError("must be the URL of the account only; the container goes into storage_container")
    return text.rstrip("/")


def _check_container(text: str) -> str:
    if not (3 <= len(text) <= 63 and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text)):
        raise ValueError(
            "must be a container's name, 3 to 63 lower-case letters, digits and single hyphens. "
            f"Received: {redact(text)}"
        )
    return text


class Settings(BaseSettings):
    """The settings in force. What is printed of them shows no secret."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, str_strip_whitespace=True, hide_input_in_errors=True
    )

    cache_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("cifarml"),
        description="Downloads and decoded images; safe to delete.",
    )
    runs_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default=Path("runs"), description="Where training puts its run folders."
    )
    endpoints_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_data_path("cifarml") / "endpoints",
        description="Where endpoints on this machine keep their models, keys and logs.",
    )
    registry_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_data_path("cifarml") / "registry",
        description="Registered models, and what is known of all runs.",
    )
    mlflow_mirror: bool = Field(
        default=True,
        description="Whether runs and versions are copied into mlflow.db in registry_dir, for `mlflow ui`.",
    )
    cifar10_url: AnyHttpUrl = Field(
        default=AnyHttpUrl(ARCHIVE_URL),
        description="Where the official archive is fetched from, such as a mirror; its hash is checked.",
    )
    storage_account: Annotated[str, AfterValidator(_check_account)] | None = Field(
        default=None, description="The storage account: its name, or the https URL of its blob endpoint."
    )
    storage_container: Annotated[str, AfterValidator(_check_container)] = Field(
        default="2000picscifar10", description="The container with the images."
    )
    target: Literal["local", "azure"] | None = Field(
        default=None,
        description="Where models and endpoints are: local or azure; azure once a workspace is set.",
    )
    subscription_id: str | None = Field(default=None, description="The Azure subscription.")
    resource_group: str | None = Field(default=None, description="The resource group of the workspace.")
    workspace_name: str | None = Field(default=None, description="The Azure ML workspace.")
    storage_connection_string: SecretStr | None = Field(
        default=None, description="Signs in to the storage account, and names it."
    )
    storage_sas_token: SecretStr | None = Field(default=None, description="Signs in with a SAS token.")
    storage_key: SecretStr | None = Field(default=None, description="Signs in with the account's key.")

    @property
    def effective_target(self) -> Literal["local", "azure"]:
        """What ``target`` says, or else azure where a workspace is set."""
        return self.target or ("azure" if all(getattr(self, name) for name in WORKSPACE) else "local")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # ours has a prefix of its own
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # .env files are not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # nor folders of secrets
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in order, the first wins."""
        return (init_settings, *_sources(settings_cls))


_SECRETS: Final = tuple(
    name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None
)
_PATHS: Final = ("cache_dir", "runs_dir", "registry_dir", "endpoints_dir")
_IN_AZURE: Final = tuple(name for name in Settings.model_fields if name.startswith("storage_")) + WORKSPACE


class Setting(NamedTuple):
    """One setting as people see it; the value of a secret is not shown, that of nothing is None."""

    name: str
    value: str | None
    origin: str


def load_settings(**arguments: Any) -> Settings:
    """Read the settings.

    Args:
        **arguments: Settings that the caller knows better; None stands for not given.

    Raises:
        SettingsError: If a variable, file or argument holds something unusable. It shows no secret.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**arguments)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ")
        source = next((source for source in _sources(Settings) if name in source()), None)
        if name in arguments or source is None:
            raise SettingsError(f"{name}: {message}") from error
        if isinstance(source, _Environment):
            variable = source.variable(name)
            hint = f"set {variable} to a valid value, or unset it"
            raise SettingsError(f"{variable}: {message}", hint=hint) from error
        hint = f"correct {name} in {source.path}"
        raise SettingsError(f"{source.path}: {name}: {message}", hint=hint) from error


def describe_settings() -> list[Setting]:
    """Return each setting with where it comes from."""
    settings, sources = load_settings(), _sources(Settings)
    described = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "set, not shown"
        elif isinstance(value, AnyHttpUrl):  # a mirror's address can hold a password
            value = re.sub(r"\?.*", "?...", re.sub(r"//[^/]*@", "//...@", str(value)))
        origin = next((source.origin(name) for source in sources if name in source()), "default")
        described.append(Setting(name, None if value is None else str(value), origin))
    return described


def settings_files() -> list[Path]:
    """Return the settings files that are read from here, the first wins."""
    return [source.path for source in _sources(Settings) if isinstance(source, _File)]


def debug_enabled() -> bool:
    """Tell whether CIFARML_DEBUG asks for tracebacks."""
    return os.environ.get("CIFARML_DEBUG", "") not in {"", "0"}


def silence_tensorflow() -> None:
    """Ask TensorFlow's native code for warnings only, unless the user has asked for something else."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def silence_mlflow() -> None:
    """Keep MLflow from calling home, unless the user has asked for it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class _Environment(EnvSettingsSource):
    """The variables of some settings, all with one prefix."""

    def __init__(self, settings_cls: type[BaseSettings], prefix: str, names: tuple[str, ...]) -> None:
        super().__init__(settings_cls, env_prefix=prefix)
        self.names = names

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name in self.names}

    def variable(self, name: str) -> str:
        return f"{self.env_prefix}{name.upper()}"

    def origin(self, name: str) -> str:
        return f"environment {self.variable(name)}"


class _File(InitSettingsSource):
    """The values of a settings file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path, values: dict[str, Any]) -> None:
        super().__init__(settings_cls, values)
        self.path = path

    def origin(self, name: str) -> str:  # noqa: ARG002
        return str(self.path)


def _sources(settings_cls: type[BaseSettings]) -> list[_Environment | _File]:
    """Return what settings are read from, the first wins."""
    sources: list[_Environment | _File] = [
        _Environment(settings_cls, "CIFARML_", tuple(Settings.model_fields)),
        _Environment(settings_cls, "AZURE_", _IN_AZURE),
    ]
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was deleted
        return sources
    folders = (here, *here.parents)
    for path in (folder / "cifarml.toml" for folder in folders):
        if os.path.lexists(path):
            known = tuple(Settings.model_fields)
            sources.append(_File(settings_cls, path, read_toml(path, known, _SECRETS, _PATHS)))
            break
    for path in (folder / name for folder in folders for name in (".azureml/config.json", "config.json")):
        if os.path.lexists(path) and (values := read_workspace(path)):
            sources.append(_File(settings_cls, path, values))
            break
    return sources
