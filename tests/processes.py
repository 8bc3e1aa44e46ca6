"""Processes forked from a server that has imported all modules but has not used them.

They start without the cost of importing TensorFlow or Azure's libraries. They run the command line, trainings
to be killed, and concurrent processes.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["CLI", "forking_context", "run_forked", "run_new", "run_on", "start_code", "start_forked"]

CLI = str(Path(sys.executable).with_name("cifarml"))
TIMEOUT_S = 280
_PRELOADED = (
    "cifarml.cli.main",
    "cifarml.explain",
    "cifarml.registry.local.registry",
    "cifarml.train.trainer",
    "tests.emulators.azureml.flows",
    "tests.data.blob.test_faults",
    "tf2onnx.convert",
)


def forking_context() -> ForkServerContext:
    """Return the multiprocessing context for these processes.

    A process has one fork server, and only the preload list of its first user takes effect: hence one list.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def run_new(*arguments: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a new interpreter."""
    return subprocess.run(
        [CLI, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        encoding="utf-8",
    )


def run_forked(*arguments: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command's ``main`` in a forked process."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = start_forked(*arguments, env=env, cwd=cwd, output=output, errors=errors)
        return subprocess.CompletedProcess(
            [CLI, *arguments],
            _wait_for(process),
            output.read_text(encoding="utf-8"),
            errors.read_text(encoding="utf-8"),
        )


def start_forked(
    *arguments: str, env: Mapping[str, str], cwd: Path, output: Path, errors: Path
) -> BaseProcess:
    """Start a command in a forked process; its output is written to two files, which may be the same."""
    for path in (output, errors):
        path.write_bytes(b"")
    process = forking_context().Process(
        target=_run, args=(arguments, dict(env), str(cwd), str(output), str(errors))
    )
    process.start()
    return process


def start_code(code: str, *, env: Mapping[str, str], cwd: Path, output: Path, errors: Path) -> BaseProcess:
    """Start Python code in a forked process; its output is written to two files."""
    for path in (output, errors):
        path.write_bytes(b"")
    arguments = (code, dict(env), str(cwd), str(output), str(errors))
    process = forking_context().Process(target=_run_code, args=arguments)
    process.start()
    return process


def run_on(backend: str, code: str, **variables: str) -> str:
    """Run Python code on a Keras backend in a new process, and return its standard output."""
    env = os.environ | {"KERAS_BACKEND": backend} | variables
    if backend == "tensorflow":
        with TemporaryDirectory() as folder:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            process = start_code(code, env=env, cwd=Path.cwd(), output=output, errors=errors)
            exit_code = _wait_for(process)
            assert exit_code == 0, errors.read_text(encoding="utf-8")
            return output.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _wait_for(process: BaseProcess) -> int:
    """Wait for the process, and return its exit code."""
    process.join(TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(process.name, TIMEOUT_S)
    return process.exitcode


def _run_code(code: str, env: dict[str, str], cwd: str, output: str, errors: str) -> None:
    os.chdir(cwd)
    _take_over(env, output, errors)
    exec(compile(code, "test code", "exec"), {"__name__": "__main__"})


def _take_over(env: dict[str, str], output: str, errors: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, output), (2, errors)):
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), number)


def _run(arguments: tuple[str, ...], env: dict[str, str], cwd: str, output: str, errors: str) -> None:
    os.chdir(cwd)
    _take_over(env, output, errors)
    sys.argv = [CLI, *arguments]
    from cifarml.cli.main import main

    main()
