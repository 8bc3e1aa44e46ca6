"""HTTP client for small blobs: one request for each read or write, and listings.

azure-storage-blob takes about four times as much CPU time for a request (docs/benchmarks.md), which limits
how fast thousands of images come, no matter how many threads wait for them.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry

from cifarml.data.blob.client import LONGEST_WAIT_S, RETRIES, Access, OnWait
from cifarml.data.blob.errors import response_error, translate_errors
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.listing import parse_listing
from cifarml.errors import CloudError

CONNECTIONS: Final = 8
"""Concurrent transfers."""

_VERSION: Final = "2021-12-02"
"""Version of the service's REST API; Get Blob and Put Blob as used here are older."""

_SIGNATURE: Final = re.compile(r"sig=[^&\s\"']+")
_RETRIED: Final = (408, 429, 500, 502, 503, 504)


class ChangedError(Exception):
    """The blob's etag or content differs from what was expected, or the blob no longer exists."""


class BlobHttpClient:
    """HTTP client for the blobs of one container.

    Args:
        access: The container and how to authenticate.
        on_wait: Called before a request is retried.
        timeout_s: How long to wait for the next bytes of a response.
        retry_wait_s: Wait before the first retry, doubled for each further one.
    """

    def __init__(self, access: Access, *, on_wait: OnWait, timeout_s: float, retry_wait_s: float) -> None:
        self._access = access
        self._retries = _ReportingRetry(
            on_wait=on_wait,
            total=RETRIES,
            connect=2,
            backoff_factor=retry_wait_s,
            backoff_max=LONGEST_WAIT_S,
            retry_after_max=LONGEST_WAIT_S,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            redirect=False,
            raise_on_status=False,
        )
        logging.getLogger("urllib3.connectionpool").addFilter(_LOG_FILTER)
        self._timeout_s = timeout_s
        self._adapter = _NoDelayAdapter(pool_maxsize=CONNECTIONS, pool_block=True)
        # requests reads proxies and certificates from the environment, as it does for the SDK.
        with requests.Session() as session:
            found = session.merge_environment_settings(access.url, {}, False, None, None)
        self._pool: Any = self._adapter.get_connection_with_tls_context(
            requests.Request("GET", access.url).prepare(),
            verify=found["verify"],
            proxies=found["proxies"],
            cert=found["cert"],
        )
        self._path = urlsplit(access.url).path
        self._origin = access.url.removesuffix(self._path)

    def get(self, name: str, *, etag: str, start: int, size_bytes: int, checked: bool = False) -> bytes:
        """Read a range of a blob.

        Args:
            name: Name of the blob.
            etag: The etag that it must have.
            start: The first byte.
            size_bytes: Size of the range, 1 byte to 4 MiB.
            checked: Request an MD5 of the range, for blobs that were stored without a hash.

        Raises:
            ChangedError: If the blob has another etag or does not exist, or the content is damaged.
            CloudError: If the service refuses the request, or can't be reached.
        """
        headers = {"If-Match": etag, "x-ms-range": f"bytes={start}-{start + size_bytes - 1}"}
        if checked:
            headers["x-ms-range-get-content-md5"] = "true"
        response = self._send("GET", name, f"read {name}", headers)
        if response.status in {404, 412, 416} and _error_code(response) != "ContainerNotFound":
            raise ChangedError(name)
        if response.status not in {200, 206}:
            raise self._refused(f"read {name}", response)
        content = response.data
        md5 = response.headers.get("Content-MD5") if checked else None
        if len(content) != size_bytes or md5 not in {None, _md5(content)}:
            raise ChangedError(name)
        return content

    def list_blobs(self, prefix: str, *, page_blobs: int = 5000) -> Iterator[BlobInfo]:
        """List the blobs whose names begin with ``prefix``, in the order of the service.

        Args:
            prefix: Empty for all.
            page_blobs: Blobs per request, at most 5000.

        Raises:
            CloudError: If the service refuses the request, or can't be reached.
        """
        what = f"list {self._access.url}/{prefix}"
        query = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": page_blobs}
        if prefix:
            query["prefix"] = prefix
        while True:
            response = self._send("GET", "", what, {}, query=urlencode(query, quote_via=quote))
            if response.status != requests.codes.ok:
                raise self._refused(what, response)
            try:
                blobs, query["marker"] = parse_listing(response.data)
            except ValueError as error:
                raise CloudError(f"can't {what}: {error}", "try again") from error
            yield from blobs
            if not query["marker"]:
                return

    def put(self, name: str, content: bytes, *, etag: str | None, headers: Mapping[str, str]) -> None:
        """Write a blob in one request.

        Args:
            name: Name of the blob.
            content: At most 4 MiB.
            etag: The etag of the blob to replace; None to create one.
            headers: Content type and metadata.

        Raises:
            ChangedError: If there is another blob of that name.
            CloudError: If the service refuses the request, or can't be reached.
        """
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": _md5(content), **condition, **headers}
        response = self._send("PUT", name, f"write {name}", headers, content)
        if _error_code(response) in {"BlobAlreadyExists", "ConditionNotMet"}:
            raise ChangedError(name)
        if response.status != requests.codes.created:
            raise self._refused(f"write {name}", response)

    def _send(
        self,
        method: str,
        name: str,
        what: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: str = "",
    ) -> BaseHTTPResponse:
        with translate_errors(self._access, what):
            path = self._path + (f"/{quote(name)}" if name else "")
            headers = {"x-ms-version": _VERSION, **headers}
            if body is not None:
                headers["Content-Length"] = str(len(body))
            target = f"{path}?{query}" if query else path
            signature, signed = self._access.authorize(method, self._origin + target, headers)
            if signature:
                target += ("&" if query else "?") + signature
            response: BaseHTTPResponse = self._pool.urlopen(
                method,
                target,
                body=body,
                headers=headers | signed,
                retries=self._retries,
                redirect=False,
                timeout=self._timeout_s,
                decode_content=False,
            )
        return response

    def _refused(self, what: str, response: BaseHTTPResponse) -> CloudError:
        detail = response.data[:10_000].decode("utf-8", "replace")
        return response_error(self._access, what, response.status, response.headers, detail)

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()


class _ReportingRetry(Retry):
    """urllib3's retry policy, which reports each wait."""

    def __init__(self, *arguments: Any, on_wait: OnWait, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_wait = on_wait

    def new(self, **options: Any) -> Self:
        """Return the policy for the remaining retries."""
        return super().new(on_wait=self._on_wait, **options)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Report the wait, and wait."""
        wanted = self.get_retry_after(response) if response else None
        reason = f"the service answers {response.status}" if response else "the connection broke"
        self._on_wait(wanted or self.get_backoff_time(), reason)
        super().sleep(response)


class _NoDelayAdapter(HTTPAdapter):
    """Sets TCP_NODELAY for connections through a proxy, too, where urllib3 lets small writes wait 40 ms."""

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the connection manager of a proxy."""
        no_delay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        return super().proxy_manager_for(proxy, socket_options=no_delay, **options)


class _LogFilter(logging.Filter):
    """Redacts signatures in the URLs that urllib3 logs, and drops retries that were reported already."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args and isinstance(record.args, tuple) and isinstance(record.args[0], _ReportingRetry):
            return False
        message = record.getMessage()
        if "sig=" in message:
            record.msg, record.args = _SIGNATURE.sub("sig=***", message), ()
        return True


_LOG_FILTER: Final = _LogFilter()


def _error_code(response: BaseHTTPResponse) -> str:
    return str(response.headers.get("x-ms-error-code", ""))


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
