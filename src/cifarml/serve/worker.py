"""Worker process of one deployment: runs a scoring script, unchanged, on requests from a pipe.

``python -m cifarml.serve.worker SCRIPT MODEL_DIR`` reads frames from standard input and writes frames to
standard output: one when it is ready, then one for each batch. The script's own output goes to the log.
It exits at the end of its input or when its parent process exits.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO, Final

from cifarml.serve.pipe_protocol import LENGTH, pack, unpack

INIT_FAILED: Final = 3
"""Exit code if the script fails to start, as in Azure ML's inference server."""

_CHECK_INTERVAL_S: Final = 1.0


def main() -> None:
    """Run the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C and lets workers finish
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the script goes to the log
    os.environ["AZUREML_MODEL_DIR"] = sys.argv[2]  # as on a managed endpoint
    try:
        script = _load_script(Path(sys.argv[1]))
        script.init()
    except BaseException:  # noqa: BLE001  # a scoring script may raise anything, even SystemExit
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(INIT_FAILED)
    _write_frame(answers, pack([(b"ready", b"")]))
    while (frame := _read_frame(requests)) is not None:
        batch = [(head.decode("latin-1"), body) for head, body in unpack(frame)]
        _write_frame(answers, pack([(str(status).encode(), body) for status, body in script.answer(batch)]))
    sys.stderr.flush()
    os._exit(0)  # skips the slow cleanup of libraries


def _load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("score", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python script")
    module = importlib.util.module_from_spec(spec)
    sys.modules["score"] = module
    spec.loader.exec_module(module)
    return module


def _read_frame(requests: BinaryIO) -> bytes | None:
    """Return the next frame, or None at the end of the input."""
    length = requests.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    return requests.read(LENGTH.unpack(length)[0])


def _write_frame(answers: BinaryIO, frame: bytes) -> None:
    try:
        answers.write(frame)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)


def _exit_with_parent(parent: int) -> None:
    """Exit when the server has died, even while the script is running."""
    while os.getppid() == parent:
        time.sleep(_CHECK_INTERVAL_S)
    os._exit(0)


if __name__ == "__main__":
    main()
