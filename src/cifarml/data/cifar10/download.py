"""Fetch a file once: resumed after a break, checked, and shared by all who want it at the same time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from cifarml.errors import DownloadError
from cifarml.progress import OnProgress, Progress, ignore_progress

_TIMEOUTS_S: Final = (5, 60)
"""To connect, and for the next bytes of a response."""

_BLOCK_BYTES: Final = 2**14
"""At most so much is lost when a connection breaks."""


def download_file(
    url: str, target: Path, *, sha256: str, size_bytes: int, on_progress: OnProgress = ignore_progress
) -> Path:
    """Fetch a published file into ``target``, unless it is there already.

    The bytes go to ``<target>.partial`` and are renamed only when their hash is right, so ``target`` is
    either whole or missing. A later call resumes a partial file. A lock makes a second process wait
    and use the same download. Returns ``target``.

    Raises:
        DownloadError: If it can't be fetched or written, or what arrives is another file.
    """
    if target.exists():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _fetch_file(url, partial, size_bytes, on_progress)
                with partial.open("rb") as file:
                    received = hashlib.file_digest(file, "sha256").hexdigest()
                if received != sha256:
                    partial.unlink()
                    raise DownloadError(
                        f"{url} is not the published file: SHA-256 {received}, expected {sha256}"
                    )
                partial.replace(target)
    except OSError as error:
        # requests' errors are OSErrors too, but _fetch_file has translated them.
        raise DownloadError(f"can't write {target}: {error.strerror or error}") from error
    return target


def _fetch_file(url: str, partial: Path, size_bytes: int, on_progress: OnProgress) -> None:
    session = requests.Session()
    retry = Retry(
        total=2,
        connect=1,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,  # a server may ask for hours
    )
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    with session:
        while (have := _file_size(partial)) != size_bytes:
            if have > size_bytes:
                partial.unlink()
                continue
            try:
                _fetch_rest(session, url, partial, have, size_bytes, on_progress)
                reason = f"it ended after {_file_size(partial):,} of {size_bytes:,} bytes"
            except (requests.RequestException, HTTPError) as error:  # requests lets some of urllib3's through
                reason = _describe_error(error)
            if _file_size(partial) <= have:  # go on for as long as each try brings something
                raise DownloadError(
                    f"can't fetch {url}: {reason}",
                    hint="try again later (it resumes), or fetch the file yourself and pass its path",
                )


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(
    session: requests.Session, url: str, partial: Path, have: int, size_bytes: int, on_progress: OnProgress
) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            partial.unlink()
            return
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        resumed = resumed and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as file:
            for block in response.iter_content(_BLOCK_BYTES):
                done += len(block)
                if done > size_bytes:
                    raise DownloadError(f"{url} sends more than the {size_bytes:,} bytes that are published")
                file.write(block)
                on_progress(Progress("downloading", done, size_bytes, unit="bytes"))


def _describe_error(error: requests.RequestException | HTTPError) -> str:
    """Say in a few words what requests says in many."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return str(error) or type(error).__name__
