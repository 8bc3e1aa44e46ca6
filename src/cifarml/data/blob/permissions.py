"""May we do what we will want to do?"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.store import BlobStore
from cifarml.errors import CifarMLError
from cifarml.settings import Settings

__all__ = ["check_rights"]


def check_rights(settings: Settings) -> Iterator[tuple[str, CifarMLError | None]]:
    """Try what cifarml does in the container of the settings, with a small blob that is deleted again.

    Args:
        settings: Which account and container, and how to sign in.

    Yields:
        The name of a right ("list", "write", "read", "delete"), and None where we have it, or why not.
        After the first that is missing, those that depend on it are left out.
    """
    try:
        store = BlobStore(BlobAddress(settings.storage_container), settings=settings)
    except CifarMLError as error:
        yield "sign in", error
        return
    name = f".cifarml-check-{secrets.token_hex(8)}"
    with store, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "check")
        path.write_text("May we write here? This can be deleted.")
        refused = _try(lambda: store.list_blobs(name))
        yield "list", refused
        if refused is not None:  # an upload would make a container that is missing
            return
        refused = _try(lambda: store.upload({name: path}))
        yield "write", refused
        if refused is None:
            yield "read", _try(lambda: store.download([(name, Path(folder, "copy"))]))
            yield "delete", _try(lambda: store.delete(name))


def _try(what: Callable[[], object]) -> CifarMLError | None:
    try:
        what()
    except CifarMLError as error:
        return error
    return None
