"""Processes to kill and to race: forked from one that has imported what any of them needs."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

__all__ = ["forking_context"]

_PRELOADED = ("tests.azure.ml.flows", "tests.azure.test_blob_faults", "cifarml.registry.local")


def forking_context() -> ForkServerContext:
    """Return the context to start them in.

    There is one such server in a process, and only the list of its first user counts: hence one list.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context
