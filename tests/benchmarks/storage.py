"""Blobs: ours against azure-storage-blob as its documentation shows it, on one Azurite."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.benchmarks.pairs import SMALL, peer, row, timed
from tests.emulators.azurite_server import Azurite, install


def storage(work: Path, pairs: int = 3) -> None:
    """Azurite, by the SDK as its documentation shows it and by ours."""
    with azurite(work) as environment, line_to(environment, delay_s=0.0025) as slow:
        folder = work / "images"
        with zipfile.ZipFile(SMALL) as archive:
            archive.extractall(folder)
        large, huge = work / "large.bin", work / "huge.bin"
        write_random(large, 60_000_000)
        write_random(huge, 10**9)

        def run(*arguments: object) -> tuple[float, int]:
            return peer(*arguments, cache=work / "cache", **environment)

        for latency, line in (("over a line of 5 ms", slow), ("on loopback", environment)):
            tag = uuid.uuid4().hex
            ours, sdk = [], []
            for number in range(pairs):
                cache = work / f"{tag}{number}"
                sdk.append(peer("sdk_write_many", f"sdk{tag}{number}", folder, cache=cache, **line)[0])
                ours.append(peer("our_write_many", f"our{tag}{number}", folder, cache=cache, **line)[0])
            row(f"writing 2000 images {latency}, against upload_blob", ours, sdk, "at most 0.25")
            ours, sdk = [], []
            for number in range(pairs):
                cache = work / f"{tag}{number}"
                sdk.append(peer("sdk_read_many", f"our{tag}0", "-", cache=cache, **line)[0])
                ours.append(peer("our_read_many", f"our{tag}0", "-", cache=cache, **line)[0])
            row(f"reading 2000 images {latency}, against download_blob", ours, sdk, "at most 0.25")
        run("our_write_blob", "blobs", large)
        ours, sdk = [], []
        for number in range(2 * pairs):
            sdk.append(run("sdk_read_blob", "blobs", work / f"sdk{number}.bin")[0])
            ours.append(run("our_read_blob", "blobs", work / f"ours{number}.bin")[0])
        row("reading 60 MB, against download_blob(max_concurrency=8)", ours, sdk, "at most 1.11")

        run("our_write_blob", "blobs", SMALL)
        code = f"from cifarml import load_dataset; load_dataset('az://blobs/{SMALL.name}')"
        cached = {"CIFARML_CACHE_DIR": str(work / "cache")} | environment
        timed([sys.executable, "-c", code], **cached)
        ours, numpy = [], []
        for _ in range(2 * pairs):
            ours.append(timed([sys.executable, "-c", code], **cached))
            numpy.append(timed([sys.executable, "-c", "import numpy"]))
        row("2000 images from a zip in storage, again, against import numpy", ours, numpy, "under 8")

        empty = run("nothing")[1]
        _, writing = run("our_write_blob", "blobs", huge)
        _, reading = run("our_read_blob", "blobs", work / "back.bin", huge.name)
        print(
            f"\nMemory over the interpreter's for a blob of 1 GB: {(writing - empty) / 1e6:.0f} MB to write, "
            f"{(reading - empty) / 1e6:.0f} MB to read (bar: under 150 MB)."
        )


@contextmanager
def azurite(work: Path) -> Iterator[dict[str, str]]:
    """A running Azurite over TLS, and the environment that leads to it."""
    install()
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    certificate, private_key = work / "cert.pem", work / "key.pem"
    authority.cert_pem.write_to_path(work / "ca.pem")
    certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
    leaf.private_key_pem.write_to_path(private_key)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    server = Azurite("benchmark", key, certificate, private_key)
    connection = (
        f"DefaultEndpointsProtocol=https;AccountName=benchmark;AccountKey={key};"
        f"BlobEndpoint=https://127.0.0.1:{server.port}/benchmark;"
    )
    try:
        yield {
            "AZURE_STORAGE_CONNECTION_STRING": connection,
            "REQUESTS_CA_BUNDLE": str(work / "ca.pem"),
            "NO_PROXY": "127.0.0.1",
        }
    finally:
        server.close()


@contextmanager
def line_to(environment: dict[str, str], delay_s: float) -> Iterator[dict[str, str]]:
    """The environment that leads there over a line with latency, so long each way."""
    connection = environment["AZURE_STORAGE_CONNECTION_STRING"]
    port = connection.partition("127.0.0.1:")[2].partition("/")[0]
    command = [sys.executable, "-m", "tests.benchmarks.line", port, str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        new = process.stdout.readline().strip()
        try:
            yield environment | {
                "AZURE_STORAGE_CONNECTION_STRING": connection.replace(f":{port}/", f":{new}/")
            }
        finally:
            process.kill()


def write_random(path: Path, size_bytes: int) -> None:
    """Write a file that can't be compressed."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, 10**7):
            file.write(secrets.token_bytes(min(10**7, size_bytes - start)))
