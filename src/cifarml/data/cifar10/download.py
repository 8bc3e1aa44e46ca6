"""Resumable file download, verified by SHA-256 and shared between processes."""

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
from cifarml.locks import hold
from cifarml.progress import OnProgress, Progress, ignore_progress

_TIMEOUTS_S: Final = (5, 60)
"""Connect and read timeouts."""

_BLOCK_BYTES: Final = 2**14
"""Maximum number of bytes lost when a connection breaks."""


def download_file(
    url: str, target: Path, *, sha256: str, size_bytes: int, on_progress: OnProgress = ignore_progress
) -> Path:
    """Download a file, unless the target exists.

    Data is written to `<target>.partial` and renamed after its hash is verified, so the target is either
    complete or missing. A later call resumes a partial download. A lock file makes concurrent processes
    share one download.

    Args:
        url: Address of the file.
        target: Path to write to.
        sha256: Expected SHA-256, hexadecimal.
        size_bytes: Expected size.
        on_progress: Called as data arrives.

    Returns:
        The target.

    Raises:
        DownloadError: If the download or writing fails, or the size or hash does not match.
    """
    if target.exists():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hold(FileLock(f"{target}.lock"), "the download of CIFAR-10"):
            if not target.exists():
                _fetch_file(url, partial, size_bytes, on_progress)
                with partial.open("rb") as file:
                    received = hashlib.file_digest(file, "sha256").hexdigest()
                if received != sha256:
                    partial.unlink()
                    raise DownloadError(
                        f"SHA-256 mismatch for {url}: expected {sha256}. Received: {received}"
                    )
                partial.replace(target)
    except OSError as error:
        # Not a network error: requests' exceptions are OSErrors, too, but _fetch_file translates them.
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
        respect_retry_after_header=False,  # a server may request hours
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
                reason = f"the response ended after {_file_size(partial):,} of {size_bytes:,} bytes"
            except (
                requests.RequestException,
                HTTPError,
            ) as error:  # not all of urllib3's are wrapped
                reason = _describe_error(error)
            if _file_size(partial) <= have:  # retry for as long as each attempt makes progress
                raise DownloadError(
                    f"can't fetch {url}: {reason}",
                    hint="try again later (it resumes), or download the file yourself and pass its path",
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
                    raise DownloadError(f"{url} sent more than the expected {size_bytes:,} bytes")
                file.write(block)
                on_progress(Progress("downloading", done, size_bytes, unit="bytes"))


def _describe_error(error: requests.RequestException | HTTPError) -> str:
    """Return a short reason for a network error."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server returned {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the connection timed out"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS certificate verification failed"
    if isinstance(error, requests.ConnectionError):
        return "connection failed"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was interrupted"
    return str(error) or type(error).__name__
