"""Settings: sources, precedence, invalid files and masked secrets."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from cifarml.errors import SettingsError
from cifarml.settings import Setting, Settings, describe_settings, load_settings, settings_files
from tests.conftest import IN_AZURE

SECRET = "c2VjcmV0LW9mLW91cnMhISEhISEhISEhISEhISEhISEhISEhISEh+/=="
SECRETS = ("storage_connection_string", "storage_sas_token", "storage_key", "serve_key")
WORKSPACE = {"subscription_id": "s-1", "resource_group": "g-1", "workspace_name": "w-1"}
DOCS = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test two folders below the folder with the settings files."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    return tmp_path


@pytest.fixture
def toml(folder: Path) -> Write:
    def write(text: str) -> Path:
        path = folder / "cifarml.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def origin(name: str) -> str:
    return next(each.origin for each in describe_settings() if each.name == name)


def refused() -> SettingsError:
    """Return the error raised by loading the settings, after checking that it shows no secret."""
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in str(caught.value.hint)
    return caught.value


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIFARML_CACHE_DIR")
    monkeypatch.delenv("CIFARML_CIFAR10_URL")
    monkeypatch.delenv("CIFARML_REGISTRY_DIR")
    monkeypatch.delenv("CIFARML_ENDPOINTS_DIR")
    monkeypatch.delenv("CIFARML_MLFLOW_MIRROR")
    settings = load_settings()
    assert settings.runs_dir == Path("runs")
    assert settings.storage_container == "2000picscifar10"
    assert settings.cache_dir.is_absolute()
    assert {name for name, value in settings if value is None} == {
        "storage_account", "target", "subscription_id", "resource_group", "workspace_name", *SECRETS
    }  # fmt: skip
    assert {each.origin for each in describe_settings()} == {"default"}
    assert settings_files() == []


def test_precedence_of_sources(folder: Path, toml: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step adds a source that takes precedence over the earlier ones."""
    config = folder / "config.json"
    config.write_text(json.dumps(WORKSPACE | {"other": 1}))
    assert (load_settings().resource_group, origin("resource_group")) == ("g-1", str(config))
    file = toml('resource_group = "g-2"')
    assert (load_settings().resource_group, origin("resource_group")) == ("g-2", str(file))
    assert load_settings().workspace_name == "w-1", "other settings are still read from config.json"
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "g-3")
    assert load_settings().resource_group == "g-3"
    assert origin("resource_group") == "environment AZURE_RESOURCE_GROUP"
    monkeypatch.setenv("CIFARML_RESOURCE_GROUP", "g-4")
    assert load_settings().resource_group == "g-4"
    assert origin("resource_group") == "environment CIFARML_RESOURCE_GROUP"
    assert load_settings(resource_group="g-5").resource_group == "g-5"
    assert load_settings(resource_group=None).resource_group == "g-4", "None means not given"
    assert settings_files() == [file, config]


@pytest.mark.parametrize("prefix", ["CIFARML", "AZURE"])
@pytest.mark.parametrize("name", IN_AZURE)
def test_environment_variables(monkeypatch: pytest.MonkeyPatch, prefix: str, name: str) -> None:
    monkeypatch.setenv(f"{prefix}_{name}", "  value1\n")
    value = getattr(load_settings(), name.lower())
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == "value1", "without blanks"
    assert origin(name.lower()) == f"environment {prefix}_{name}"
    monkeypatch.setenv(f"{prefix}_{name}", "")
    assert load_settings() == load_settings(**{name.lower(): None}), "an empty variable counts as not set"


def test_other_settings_have_no_azure_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_RUNS_DIR", "elsewhere")
    assert load_settings().runs_dir == Path("runs")


def test_nearest_toml_is_read_and_its_paths_are_relative_to_it(
    folder: Path, toml: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIFARML_CACHE_DIR")
    toml('runs_dir = "far"\nstorage_account = "faraway"')
    near = folder / "a" / "cifarml.toml"
    near.write_text('runs_dir = "here/runs"\ncache_dir = "~/cache"\nstorage_container = ""\n')
    settings = load_settings()
    assert settings.runs_dir == folder / "a" / "here" / "runs"
    assert settings.cache_dir == Path.home() / "cache"
    assert settings.storage_account is None, "only the nearest file is read"
    assert settings.storage_container == "2000picscifar10", "an empty value counts as not set"
    near.write_text(f'runs_dir = "{folder}"', encoding="utf-8-sig")
    assert load_settings().runs_dir == folder, "a byte order mark is accepted"
    near.write_text("")
    assert load_settings().runs_dir == Path("runs")


@pytest.mark.parametrize("place", ["a/b/.azureml", "a/b", ".azureml", "."])
def test_workspace_file_locations(folder: Path, place: str) -> None:
    (folder / place).mkdir(exist_ok=True)
    path = folder / place / "config.json"
    path.write_text(json.dumps(WORKSPACE))
    assert {name: getattr(load_settings(), name) for name in WORKSPACE} == WORKSPACE
    assert settings_files() == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"subscription_id": "x"}', "[" * 100_000, " " * 2_000_000])
def test_config_json_of_another_program_is_ignored(folder: Path, text: str) -> None:
    (folder / "a" / "b" / "config.json").write_text(text)
    (folder / "a" / "config.json").mkdir()
    (folder / "config.json").write_text(json.dumps(WORKSPACE))
    assert load_settings().workspace_name == "w-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"workspace_name": "x",\n}', "line 2"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * 2_000_000, "larger than 1 MiB"),
        (b"\n\n\xff", "line 3: not UTF-8"),
        (b"\0", "not valid JSON"),
        (b'{"subscription_id": 5, "resource_group": "g", "workspace_name": "w"}', "subscription_id"),
    ],
)
def test_error_names_the_invalid_workspace_file(folder: Path, content: bytes, message: str) -> None:
    (folder / ".azureml").mkdir()
    path = folder / ".azureml" / "config.json"
    path.write_bytes(content)
    error = refused()
    assert str(path) in error.message
    assert message in error.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'runs_dir = "x"\nruns_dir\n', "line 2"),
        (f'\nstorage_key "{SECRET}"'.encode(), "line 2"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"a = " + b"9" * 10_000, "not valid TOML"),
        (b"#" * 2_000_000, "larger than 1 MiB"),
        (b"\n# \xe9\xff", "line 2: not UTF-8"),
        (b'runs_dir = "a\0b"', "not valid TOML"),
        (b'runs_dir = "a\\u0000b"', "NUL"),
        (b"runs_dir = 5", "runs_dir"),
        (b'runs_dir = "~nobody-of-that-name/x"', "home folder"),
        (b'[runs_dir]\nstorage_key = "x"', "runs_dir"),
        (b'storage_account = "No_Account"', "'No_Account'"),
        (b'storage_container = "a--b"', "'a--b'"),
        (b"storage_account = 2026-01-01", "storage_account"),
    ],
)
def test_error_names_the_invalid_toml(folder: Path, content: bytes, message: str) -> None:
    path = folder / "cifarml.toml"
    path.write_bytes(content)
    error = refused()
    assert str(path) in error.message
    assert message in error.message
    assert len(error.message) < 500
    assert error.hint


def test_toml_that_is_not_a_regular_file(folder: Path) -> None:
    path = folder / "cifarml.toml"
    path.mkdir()
    assert refused().message == f"{path} is not a file"
    path.rmdir()
    os.mkfifo(path)
    assert refused().message == f"{path} is not a file", "reading a pipe does not block"
    path.unlink()
    path.symlink_to("nowhere")
    assert "No such file" in refused().message
    path.unlink()
    path.symlink_to("/dev/zero")
    assert refused().message == f"{path} is not a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_toml(toml: Write) -> None:
    toml("").chmod(0)
    assert "Permission denied" in refused().message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("storage_acount", "storage_account"),
        ("runs-dir", "runs_dir"),
        ("CIFARML_CACHE_DIR", "cache_dir"),
        ("zzz", "settings: cache_dir"),
        ("storage", "storage_account"),
    ],
)
def test_unknown_setting_in_toml(toml: Write, key: str, hint: str) -> None:
    path = toml(f'# x\n{key} = "{SECRET}"\n')
    error = refused()
    assert error.message == f"{path}, line 2: there is no setting '{key}'"
    assert hint in str(error.hint)
    assert "storage_key" not in str(error.hint)


def test_unknown_table_in_toml(toml: Write) -> None:
    toml(f'\n\n[azure]\nkey = "{SECRET}"\n')
    assert "line 3" in refused().message


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("spelt", ["{}", "AZURE_{}", "cifarml_{}"])
def test_secret_in_toml_is_refused(toml: Write, name: str, spelt: str) -> None:
    path = toml(f'runs_dir = "x"\n{spelt.format(name)} = "{SECRET}"')
    error = refused()
    assert f"{path}, line 2: {name} is a secret" in error.message
    assert f"CIFARML_{name.upper()}" in str(error.hint)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("abc", "abc"),
        ("images2000", "images2000"),
        ("https://images.blob.core.windows.net/", "https://images.blob.core.windows.net"),
        ("https://localhost:10000/devstoreaccount1", "https://localhost:10000/devstoreaccount1"),
        ("https://images.blob.core.chinacloudapi.cn", "https://images.blob.core.chinacloudapi.cn"),
    ],
)
def test_valid_storage_accounts(given: str, expected: str) -> None:
    assert load_settings(storage_account=given).storage_account == expected


@pytest.mark.parametrize(
    "given",
    [
        "ab", "a" * 25, "Images", "my-account", "http://x.blob.core.windows.net", "https://", "https://[x",
        "https://x:99999999/", "https://x y/", "https://x\n.net", "https://x/\0", "https://猫.net", "ftp://x",
        f"https://x.blob.core.windows.net/?sig={SECRET}", f"https://user:{SECRET}@x.net",
        f"AccountKey={SECRET}",
        f"AccountName=x;AccountKey={SECRET};", SECRET, "https://x.blob.core.windows.net/container",
        f"https://x.net/#{SECRET}",
    ],
)  # fmt: skip
def test_invalid_storage_accounts(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage_account: must be "):
        load_settings(storage_account=given)
    if "\0" not in given:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", given)
        assert refused().message.startswith("AZURE_STORAGE_ACCOUNT: must be ")


@pytest.mark.parametrize("given", ["ab", "a" * 64, "A-b", "-ab", "ab-", "a--b", "a/b", "a b", "../x", SECRET])
def test_invalid_containers(given: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage_container: must be ") as caught:
        load_settings(storage_container=given)
    assert SECRET not in str(caught.value)


def test_unknown_arguments() -> None:
    with pytest.raises(SettingsError, match="no_such_thing"):
        load_settings(no_such_thing=1)
    with pytest.raises(ValidationError) as caught:
        Settings(storage_key=[SECRET], storage_acount=SECRET)  # type: ignore[arg-type, call-arg]
    assert SECRET not in str(caught.value)


def test_undecodable_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "\udcff\udcfe")
    refused()


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = f"{'CIFARML' if name == 'serve_key' else 'AZURE'}_{name.upper()}"
    monkeypatch.setenv(variable, SECRET)
    settings = load_settings()
    assert getattr(settings, name).get_secret_value() == SECRET
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in shown + str(describe_settings())
    assert Setting(name, "set, not shown", f"environment {variable}") in describe_settings()


def test_password_of_a_mirror_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFARML_CIFAR10_URL", "https://me:pass@mirror.net/x.tar.gz?token=abc")
    assert "https://...@mirror.net/x.tar.gz?..." in [each.value for each in describe_settings()]


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError):
        load_settings().runs_dir = Path("x")


def test_without_a_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_settings().runs_dir == Path("runs")


def test_loading_imports_nothing_heavy(python: Callable[[str], str]) -> None:
    code = "import sys; from cifarml.settings import load_settings; load_settings(); print(*sys.modules)"
    assert not {"azure", "numpy", "keras", "tensorflow", "requests"} & set(python(code).split())


def test_page_lists_every_setting() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"\n| `{name}` |" in page
        assert f"`CIFARML_{name.upper()}`" in page


def test_example_on_page_is_valid(toml: Write) -> None:
    page = DOCS.read_text(encoding="utf-8")
    path = toml(page.partition("```toml\n")[2].partition("```")[0])
    assert origin("storage_account") == str(path)
