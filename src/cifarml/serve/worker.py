"""The process of one deployment: runs a scoring script, unchanged, over requests from a pipe.

``python -m cifarml.serve.worker SCRIPT MODEL_DIR`` reads frames from standard input and writes frames to
standard output: first one that says it is ready, then one for each batch. What the script prints goes to the
log.
It ends when its input ends, or when the server that started it is gone.
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

__all__ = ["INIT_FAILED", "main"]

INIT_FAILED: Final = 3
"""Exit code where the script could not start, as the inference server of Azure ML has it."""

_LOOK_EVERY_S: Final = 1.0


def main() -> None:
    """Run the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which lets us finish
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the script prints is for the log
    os.environ["AZUREML_MODEL_DIR"] = sys.argv[2]  # where a managed endpoint tells it, too
    try:
        script = _load(Path(sys.argv[1]))
        script.init()
    except BaseException:  # noqa: BLE001  # whatever a scoring script does, also exit
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(INIT_FAILED)
    _say(answers, pack([(b"ready", b"")]))
    while (frame := _read(requests)) is not None:
        batch = [(head.decode("latin-1"), body) for head, body in unpack(frame)]
        _say(answers, pack([(str(status).encode(), body) for status, body in script.answer(batch)]))
    sys.stderr.flush()
    os._exit(0)  # what libraries tidy up at the end takes longer than all the rest


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("score", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python script")
    module = importlib.util.module_from_spec(spec)
    sys.modules["score"] = module
    spec.loader.exec_module(module)
    return module


def _read(requests: BinaryIO) -> bytes | None:
    """Return the next frame, or None at the end."""
    length = requests.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    return requests.read(LENGTH.unpack(length)[0])


def _say(answers: BinaryIO, frame: bytes) -> None:
    try:
        answers.write(frame)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)


def _end_with_parent(parent: int) -> None:
    """End when the server has died, whatever the script is doing."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(0)


if __name__ == "__main__":
    main()
