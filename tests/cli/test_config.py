"""``cifarml config show`` and ``--verbose``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarml.settings import Settings
from tests.conftest import CommandLine

SECRET = "c2VjcmV0LW9mLW91cnMhISEhISEhISEhISEhISEhISEhISEhISEh+/=="
SECRETS = ("storage_connection_string", "storage_sas_token", "storage_key")


def test_config_show(cifarml: CommandLine, tmp_path: Path) -> None:
    """Each setting is printed with its value and source; secrets are hidden."""
    (tmp_path / "cifarml.toml").write_text('storage_account = "images"\n')
    env = {f"AZURE_{name.upper()}": SECRET for name in SECRETS} | {"CIFARML_RUNS_DIR": "/tmp/runs"}
    for debug in ("0", "1"):
        done = cifarml("config", "show", env=env | {"CIFARML_DEBUG": debug})
        assert (done.returncode, done.stderr) == (0, "")
        assert SECRET not in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert set(Settings.model_fields) < set(lines)
    assert lines["runs_dir"] == ["/tmp/runs", "environment", "CIFARML_RUNS_DIR"]
    assert lines["storage_account"] == ["images", str(tmp_path / "cifarml.toml")]
    assert lines["storage_container"] == ["2000picscifar10", "default"]
    assert lines["storage_key"] == ["set,", "not", "shown", "environment", "AZURE_STORAGE_KEY"]
    assert f"Read: {tmp_path / 'cifarml.toml'}" in done.stdout

    shown = cifarml("config", "show", "--json", env=env)
    assert SECRET not in shown.stdout + shown.stderr
    document = json.loads(shown.stdout)
    assert document["files"] == [str(tmp_path / "cifarml.toml")]
    assert [each["name"] for each in document["settings"]] == list(Settings.model_fields)
    assert {"name": "resource_group", "value": None, "from": "default"} in document["settings"]


def test_config_show_without_files(cifarml: CommandLine) -> None:
    assert "There is no cifarml.toml" in cifarml("config", "show").stdout
    assert json.loads(cifarml("config", "show", "--json").stdout)["files"] == []


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (f'storage_key = "{SECRET}"', {}),
        (f'storage_account = "{SECRET}"', {}),
        (f'storage_sas_tokn = "{SECRET}"', {}),
        (f'storage_key "{SECRET}"', {}),
        (f'storage_key = "{SECRET}', {}),
        ("", {"AZURE_STORAGE_ACCOUNT": f"https://x.blob.core.windows.net/?sig={SECRET}"}),
        ("", {"CIFARML_STORAGE_CONTAINER": SECRET}),
        ("runs_dir = 5", dict.fromkeys(("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"), SECRET)),
    ],
)
@pytest.mark.parametrize("debug", ["0", "1"])
def test_errors_show_no_secret(
    cifarml: CommandLine, tmp_path: Path, text: str, env: dict[str, str], debug: str
) -> None:
    """Secrets appear neither in the message nor in the traceback."""
    (tmp_path / "cifarml.toml").write_text(text)
    for command in (["config", "show"], ["config", "show", "--json"], ["runs", "list"]):
        done = cifarml(*command, env=env | {"CIFARML_DEBUG": debug})
        assert done.returncode == 1
        assert not done.stdout
        assert SECRET not in done.stderr
        assert ("Traceback" in done.stderr) == (debug == "1")
        assert "SettingsError" in done.stderr or done.stderr.startswith("Error: ")


def test_help_ignores_invalid_settings(cifarml: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "cifarml.toml").write_text("?")
    assert cifarml("--help").returncode == 0
    assert cifarml("config").returncode == 2, "no command is wrong usage and shows the help"


@pytest.mark.parametrize("flags", [[], ["--verbose"], ["-v"]])
def test_verbose_prints_only_the_log_of_cifarml(python: Callable[[str], str], flags: list[str]) -> None:
    """Warnings are always printed, information only with ``--verbose``."""
    shown = python(f"""
import logging, sys
sys.stderr = sys.stdout
sys.argv = ["cifarml", *{flags!r}, "runs", "list"]
from cifarml.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
logging.getLogger("cifarml.data.blob").info("signing in %s", "here")
logging.getLogger("cifarml.data.cache").warning("damaged")
logging.getLogger("cifarml.data.cache").debug("too much")
logging.getLogger("azure.core").info("headers")
""")
    assert shown.splitlines()[1:] == (["signing in here", "damaged"] if flags else ["damaged"])
