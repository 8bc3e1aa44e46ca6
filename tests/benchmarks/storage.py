"""Azure Storage: cifarml against azure-storage-blob and adlfs, on an Azurite emulator."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.benchmarks.pairs import SMALL, peer, row, timed
from tests.emulators.azurite_server import Azurite, install
from tests.environments import environment


def storage(work: Path, pairs: int = 3) -> None:
    """Large blobs, and a second (cached) load from storage."""
    with azurite(work) as server:
        large, huge = work / "large.bin", work / "huge.bin"
        write_random(large, 60_000_000)
        write_random(huge, 10**9)

        def run(*arguments: object) -> tuple[float, int]:
            return peer(*arguments, cache=work / "cache", **server)

        run("our_write_blob", "blobs", large)
        ours, sdk = [], []
        for number in range(2 * pairs):
            sdk.append(run("sdk_read_blob", "blobs", work / f"sdk{number}.bin")[0])
            ours.append(run("our_read_blob", "blobs", work / f"ours{number}.bin")[0])
        row("reading 60 MB, against download_blob(max_concurrency=8)", ours, sdk, "at most 1.11")

        run("our_write_blob", "blobs", SMALL)
        code = f"from cifarml import load_dataset; load_dataset('az://blobs/{SMALL.name}')"
        cached = {"CIFARML_CACHE_DIR": str(work / "cache")} | server
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


def small_blobs(work: Path, rounds: int = 7, counts: Sequence[int] = (2000, 10_000)) -> None:
    """Many small blobs at a round-trip latency of 5 ms, against azure-storage-blob in 8 threads and adlfs."""
    peers = environment("storage-peers") / "python"
    programs: dict[str, str | Path] = {"our": sys.executable, "sdk": peers, "adlfs": peers}
    names = {"sdk": "azure-storage-blob in 8 threads", "adlfs": "adlfs"}
    with azurite(work) as server, line_to(server, delay_s=0.0025) as slow:

        def run(side: str, verb: str, *arguments: object) -> list[float]:
            command = [programs[side], "-m", "tests.benchmarks.blob_clients", f"{side}_{verb}", *arguments]
            variables = os.environ | slow | {"SSL_CERT_FILE": slow["REQUESTS_CA_BUNDLE"]}
            done = subprocess.run(
                list(map(str, command)), env=variables, capture_output=True, text=True, check=True
            )
            return [float(number) for number in done.stdout.split()]

        def compare(what: str, seconds: dict[str, list[list[float]]]) -> None:
            ours = seconds.pop("our")
            for side, theirs in seconds.items():
                for index, clock in enumerate(("wall-clock time", "CPU time")):
                    row(
                        f"{what}, against {names[side]}: {clock}",
                        [times[index] for times in ours],
                        [times[index] for times in theirs],
                        "at most 1.25",
                    )

        for count in counts:
            folder = work / f"{count}"
            for part in range(count // 2000):
                with zipfile.ZipFile(SMALL) as archive:
                    archive.extractall(folder / f"{part}")
            run("our", "write", f"read{count}", folder, count)
            reading: dict[str, list[list[float]]] = {"our": [], "sdk": [], "adlfs": []}
            for _ in range(rounds):
                for side, seconds in reading.items():
                    seconds.append(run(side, "read", f"read{count}", "images", count))
            compare(f"reading {count:,} blobs of 2 KB", reading)
        writing: dict[str, list[list[float]]] = {"our": [], "sdk": []}
        for number in range(rounds):
            for side, seconds in writing.items():
                seconds.append(run(side, "write", f"{side}{number}", work / f"{counts[0]}", counts[0]))
        compare(f"writing {counts[0]:,} blobs of 2 KB", writing)


@contextmanager
def azurite(work: Path) -> Iterator[dict[str, str]]:
    """Run Azurite over TLS; yield environment variables that point to it."""
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
def line_to(server: dict[str, str], delay_s: float) -> Iterator[dict[str, str]]:
    """Relay to a server with a delay in each direction; yield environment variables that point to it."""
    connection = server["AZURE_STORAGE_CONNECTION_STRING"]
    port = connection.partition("127.0.0.1:")[2].partition("/")[0]
    command = [sys.executable, "-m", "tests.benchmarks.line", port, str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        new = process.stdout.readline().strip()
        try:
            yield server | {"AZURE_STORAGE_CONNECTION_STRING": connection.replace(f":{port}/", f":{new}/")}
        finally:
            process.kill()


def write_random(path: Path, size_bytes: int) -> None:
    """Write an incompressible file."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, 10**7):
            file.write(secrets.token_bytes(min(10**7, size_bytes - start)))
