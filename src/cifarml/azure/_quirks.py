"""Workarounds for bugs in azure-ai-ml; tests/azure/test_quirks.py fails when one is obsolete."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

_CLOUD_VARIABLE: Final = "AZUREML_CURRENT_CLOUD"
_GRAMMAR: Final = "rfc3987_syntax"


@functools.cache
def import_client() -> None:
    """Import azure-ai-ml without an unused parser that is slow to import.

    If Jupyter is installed, importing jsonschema, a dependency of the client, builds grammars of
    internationalized URLs: 2.8 of 5.3 s (https://github.com/python-jsonschema/jsonschema/issues/1428).
    """
    modules: dict[str, Any] = sys.modules
    before = modules.setdefault(_GRAMMAR, None)  # None makes `import` raise ModuleNotFoundError
    try:
        import azure.ai.ml  # noqa: F401
    finally:
        if before is None:
            del modules[_GRAMMAR]


def create_client(credential: TokenCredential, subscription: str, group: str, workspace: str) -> MLClient:
    """Create a client whose failed uploads raise, without changing the environment variables.

    Without a progress bar, upload errors are lost, and the client hangs
    (https://github.com/Azure/azure-sdk-for-python/issues/48269). Its constructor sets a variable that child
    processes would inherit (since https://github.com/Azure/azure-sdk-for-python/pull/28780).
    """
    import_client()
    from azure.ai.ml import MLClient

    for name in ("azure.ai.ml", "azureml", "msrest"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    is_set = _CLOUD_VARIABLE in os.environ
    options: dict[str, Any] = {"show_progress": True, "enable_telemetry": False}
    client = MLClient(credential, subscription, group, workspace, **options)
    if not is_set:
        os.environ.pop(_CLOUD_VARIABLE, None)
    return client


class _Output:
    """Suppress the client's output to standard output and standard error.

    The client prints dots while it polls (https://github.com/Azure/azure-cli/issues/27424), and a progress
    bar. The streams are global: the first thread redirects them, the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._streams: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)

    @contextlib.contextmanager
    def dropped(self) -> Iterator[None]:
        """Discard output printed in the block."""
        with self._lock:
            if not self._depth:
                self._streams = (sys.stdout, sys.stderr)
                sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth:
                    sys.stdout, sys.stderr = self._streams

    @contextlib.contextmanager
    def visible(self) -> Iterator[None]:
        """Show output printed in the block, even inside :meth:`dropped`."""
        stdout, stderr = self._streams if self._depth else (sys.stdout, sys.stderr)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield


CLIENT_OUTPUT: Final = _Output()
