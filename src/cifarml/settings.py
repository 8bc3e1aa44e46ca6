"""Settings from arguments, environment variables and settings files.

The first source that defines a setting wins: an argument, the variable ``CIFARML_<NAME>``, the variable
``AZURE_<NAME>`` (only for Azure resources), the nearest ``cifarml.toml``, Azure ML's ``config.json``, the
default. docs/reference/settings.md lists all settings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, AnyHttpUrl, BeforeValidator, Field, SecretStr, ValidationError
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
from cifarml.network_checks import (
    LOOPBACK,
    check_address,
    check_host_names,
    check_key,
    check_networks,
    check_origins,
    check_root_path,
    split_list,
)

_List = Annotated[tuple[str, ...], BeforeValidator(split_list)]


def _check_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path can't contain a NUL character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("the home folder does not exist") from error


def _check_account(text: str) -> str:
    """Validate the name of a storage account, or the https URL of its blob endpoint."""
    if re.fullmatch(r"[a-z0-9]{3,24}", text):
        return text
    if "?" in text or ";" in text or "@" in text:
        raise ValueError(
            "must be a name or a plain URL without a secret. Set AZURE_STORAGE_SAS_TOKEN to a SAS token, "
            "or AZURE_STORAGE_CONNECTION_STRING to a connection string"
        )
    try:
        url = urlsplit(text)
        usable = url.scheme == "https" and bool(url.hostname) and url.port != 0 and "#" not in text
        usable = usable and text.isascii() and not re.search(r"[\s\\\x00-\x20\x7f]", text)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "must be a storage account name (3 to 24 lower-case letters and digits) or the https URL of "
            f"its blob endpoint. Received: {redact(text)}"
        )
    if ".blob." in (url.hostname or "") and url.path.strip("/"):
        raise ValueError("must be the URL of the account; set storage_container to the container")
    return text.rstrip("/")


def _check_container(text: str) -> str:
    if not (3 <= len(text) <= 63 and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text)):
        raise ValueError(
            "must be a container name (3 to 63 lower-case letters, digits and single hyphens). "
            f"Received: {redact(text)}"
        )
    return text


class Settings(BaseSettings):
    """Effective settings; secrets are masked in their representation."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, str_strip_whitespace=True, hide_input_in_errors=True
    )

    cache_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("cifarml"),
        description="Downloads and decoded images; safe to delete.",
    )
    runs_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default=Path("runs"), description="Folder of the run folders that training creates."
    )
    endpoints_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_data_path("cifarml") / "endpoints",
        description="Models, keys and logs of the endpoints on this machine.",
    )
    registry_dir: Annotated[Path, AfterValidator(_check_path)] = Field(
        default_factory=lambda: platformdirs.user_data_path("cifarml") / "registry",
        description="Registered models, and the log of all runs.",
    )
    mlflow_mirror: bool = Field(
        default=True,
        description="Whether to copy runs and versions to mlflow.db in registry_dir, for `mlflow ui`.",
    )
    cifar10_url: AnyHttpUrl = Field(
        default=AnyHttpUrl(ARCHIVE_URL),
        description="URL of the official archive, such as a mirror; the hash is verified.",
    )
    serve_host: Annotated[str, AfterValidator(check_address)] = Field(
        default=LOOPBACK,
        description="Address on which endpoints of this machine listen, besides 127.0.0.1.",
    )
    serve_root_path: Annotated[str, AfterValidator(check_root_path)] = Field(
        default="", description="Path prefix under which a reverse proxy serves the endpoint."
    )
    serve_allowed_hosts: Annotated[_List, AfterValidator(check_host_names)] = Field(
        default=(), description="Host names by which clients may address an endpoint."
    )
    serve_allowed_origins: Annotated[_List, AfterValidator(check_origins)] = Field(
        default=(), description="Origins of other web pages that may send requests to an endpoint."
    )
    serve_trusted_proxies: Annotated[_List, AfterValidator(check_networks)] = Field(
        default=(), description="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    storage_account: Annotated[str, AfterValidator(_check_account)] | None = Field(
        default=None, description="Name of the storage account, or the https URL of its blob endpoint."
    )
    storage_container: Annotated[str, AfterValidator(_check_container)] = Field(
        default="2000picscifar10", description="Container with the images."
    )
    target: Literal["local", "azure"] | None = Field(
        default=None,
        description="Location of models and endpoints: local or azure; azure if a workspace is set.",
    )
    subscription_id: str | None = Field(default=None, description="Azure subscription.")
    resource_group: str | None = Field(default=None, description="Resource group of the workspace.")
    workspace_name: str | None = Field(default=None, description="Azure ML workspace.")
    storage_connection_string: SecretStr | None = Field(
        default=None, description="Connection string of the storage account."
    )
    storage_sas_token: SecretStr | None = Field(default=None, description="SAS token of the storage account.")
    storage_key: SecretStr | None = Field(default=None, description="Access key of the storage account.")
    serve_key: Annotated[SecretStr, AfterValidator(check_key)] | None = Field(
        default=None, description="Key of `cifarml serve`, instead of a new one for each start."
    )

    @property
    def effective_target(self) -> Literal["local", "azure"]:
        """``target``, or azure if it is not set and a workspace is."""
        return self.target or ("azure" if all(getattr(self, name) for name in WORKSPACE) else "local")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by `_sources`
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # .env files are not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # neither are secrets folders
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in order of precedence."""
        return (init_settings, *_sources(settings_cls))


_SECRETS: Final = tuple(
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)
_PATHS: Final = ("cache_dir", "runs_dir", "registry_dir", "endpoints_dir")
_IN_AZURE: Final = tuple(name for name in Settings.model_fields if name.startswith("storage_")) + WORKSPACE


class Setting(NamedTuple):
    """Setting for display; secrets are masked, and unset values are None."""

    name: str
    value: str | None
    origin: str


def load_settings(**arguments: Any) -> Settings:
    """Load the settings.

    Args:
        **arguments: Settings that take precedence over all other sources; None means not given.

    Raises:
        SettingsError: If a variable, file or argument has an invalid value. The message shows no secret.
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
    """Return each setting with its value and origin."""
    settings, sources = load_settings(), _sources(Settings)
    described = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = "set, not shown"
        elif isinstance(value, AnyHttpUrl):  # the URL of a mirror can contain a password
            value = re.sub(r"\?.*", "?...", re.sub(r"//[^/]*@", "//...@", str(value)))
        elif isinstance(value, tuple):
            value = ", ".join(value) or None
        origin = next((source.origin(name) for source in sources if name in source()), "default")
        described.append(Setting(name, None if value is None else str(value), origin))
    return described


def settings_files() -> list[Path]:
    """Return the settings files that apply to the working directory, in order of precedence."""
    return [source.path for source in _sources(Settings) if isinstance(source, _File)]


def debug_enabled() -> bool:
    """Return whether CIFARML_DEBUG enables tracebacks."""
    return os.environ.get("CIFARML_DEBUG", "") not in {"", "0"}


def silence_tensorflow() -> None:
    """Limit the log of TensorFlow's native code to warnings, unless the user has configured it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def silence_mlflow() -> None:
    """Disable MLflow's telemetry, unless the user has configured it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class _Environment(EnvSettingsSource):
    """Environment variables of some settings, with a common prefix."""

    def __init__(self, settings_cls: type[BaseSettings], prefix: str, names: tuple[str, ...]) -> None:
        super().__init__(settings_cls, env_prefix=prefix)
        self.names = names

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:  # noqa: ARG002
        """Return a list as its text, which is not JSON."""
        return value

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name in self.names}

    def variable(self, name: str) -> str:
        return f"{self.env_prefix}{name.upper()}"

    def origin(self, name: str) -> str:
        return f"environment {self.variable(name)}"


class _File(InitSettingsSource):
    """Values of a settings file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path, values: dict[str, Any]) -> None:
        super().__init__(settings_cls, values)
        self.path = path

    def origin(self, name: str) -> str:  # noqa: ARG002
        return str(self.path)


def _sources(settings_cls: type[BaseSettings]) -> list[_Environment | _File]:
    """Return the sources of settings, in order of precedence."""
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
