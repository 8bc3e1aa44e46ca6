"""Check storage permissions."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.store import BlobStore
from cifarml.errors import CifarMLError
from cifarml.settings import Settings


def check_permissions(settings: Settings) -> Iterator[tuple[str, CifarMLError | None]]:
    """Test each operation in the container of the settings, with a small blob that is deleted afterwards.

    Yields:
        A permission ("list", "write", "read", "delete"), and None if it is granted, otherwise the error.
        Permissions that can't be tested without a missing one are omitted.
    """
    try:
        store = BlobStore(BlobAddress(settings.storage_container), settings=settings)
    except CifarMLError as invalid:
        yield "sign in", invalid
        return
    name = f".cifarml-check-{secrets.token_hex(8)}"
    with store, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "check")
        path.write_text("Permission check by cifarml. This blob can be deleted.")
        error = _catch_error(lambda: store.list_blobs(name))
        yield "list", error
        if error is not None:  # an upload would create a missing container
            return
        error = _catch_error(lambda: store.upload({name: path}))
        yield "write", error
        if error is None:
            yield "read", _catch_error(lambda: store.download([(name, Path(folder, "copy"))]))
            yield "delete", _catch_error(lambda: store.delete(name))


def _catch_error(work: Callable[[], object]) -> CifarMLError | None:
    try:
        work()
    except CifarMLError as error:
        return error
    return None
