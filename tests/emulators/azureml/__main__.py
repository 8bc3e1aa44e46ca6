"""``python -m tests.emulators.azureml``: run an emulated workspace until Enter or Ctrl-C."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from pathlib import Path

from tests.emulators.azureml.cloud import Cloud


def main() -> None:
    """Run a workspace; write its environment variables to a file."""
    with tempfile.TemporaryDirectory(prefix="cifarml-cloud-") as folder:
        cloud = Cloud(Path(folder))
        try:
            exports = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in cloud.env().items())
            Path(folder, "env").write_text(exports)
            print(f"In another terminal: source {folder}/env", flush=True)
            with contextlib.suppress(KeyboardInterrupt, EOFError):
                input("Press Enter to stop. ")
        finally:
            cloud.close()


main()
