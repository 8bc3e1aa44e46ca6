"""Which deployment answers a request, and what is kept about it.

A request goes to the deployment that its header names, or to one by its share of the traffic. Where that
one can't answer, another one with traffic does: a new model that fails in its trial costs no caller an
answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple

from cifarml.errors import DeployError
from cifarml.serve.batching_queue import Busy, Runner, Unavailable
from cifarml.serve.endpoint_folder import (
    DeploymentRecord,
    EndpointFolder,
    check_deployment_name,
    check_traffic,
)
from cifarml.serve.worker_process import WorkerError

__all__ = ["Answer", "Gateway", "UnknownDeployment"]

_IMAGES: Final = Path(__file__).with_name("page_images.py")
_IMAGES_MEMORY_BYTES: Final = 1 << 30
_IMAGES_TIMEOUT_S: Final = 10.0


class UnknownDeployment(Exception):  # noqa: N818  # it becomes an answer
    """A request names a deployment that isn't there, or nothing gets traffic."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status.
        body: A JSON document.
        deployment: Who answered.
    """

    status: int
    body: bytes
    deployment: str


class Gateway:
    """The deployments of one endpoint.

    Args:
        folder: Where it is kept.
    """

    def __init__(self, folder: EndpointFolder) -> None:
        self.folder = folder
        self.record = folder.read()
        self.key = folder.read_key()
        self.runners: dict[str, Runner] = {}
        self._credit: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._starting: set[asyncio.Task[None]] = set()
        self._images: Runner | None = None

    def open(self) -> None:
        """Start all deployments that are kept, without waiting for them."""
        for record in self.record.deployments:
            self.runners[record.name] = runner = self._runner(record)
            if record.failed:
                runner.state = "failed"
            else:
                task = asyncio.create_task(runner.start(once=False))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)

    async def close(self) -> None:
        """Finish what is in hand and end all processes."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        runners = [*self.runners.values(), *([self._images] if self._images else [])]
        await asyncio.gather(*(runner.stop() for runner in runners))

    @property
    def ready(self) -> bool:
        """Whether all that get traffic can answer, and some do."""
        shares = [name for name, share in self.record.traffic.items() if share]
        return bool(shares) and all(self.runners[name].state == "ready" for name in shares)

    async def score(self, content_type: bytes, body: bytes, deployment: str | None = None) -> Answer:
        """Have a request answered.

        Args:
            content_type: What its body is.
            body: The body.
            deployment: Who answers; as traffic says when left out.

        Raises:
            UnknownDeployment: If there is none of that name, or none gets traffic.
            Unavailable: If none can answer.
        """
        if deployment is not None:
            if deployment not in self.runners:
                raise UnknownDeployment(f"there is no deployment {deployment[:64]!r}")
            return Answer(*await self.runners[deployment].ask(content_type, body), deployment)
        first = self._next()
        others = (name for name, share in self.record.traffic.items() if share and name != first)
        refusal: Unavailable | None = None
        for name in (first, *others):
            try:
                status, answer = await self.runners[name].ask(content_type, body)
            except Unavailable as error:
                if refusal is None or isinstance(error, Busy):
                    refusal = error
            else:
                return Answer(status, answer, name)
        raise refusal or UnknownDeployment(first)

    def _next(self) -> str:
        """Pick a deployment: of any hundred requests each gets its share, well mixed."""
        shares = {name: share for name, share in self.record.traffic.items() if share}
        if not shares:
            raise UnknownDeployment("no deployment gets traffic; deploy a model first")
        if len(shares) == 1:
            return next(iter(shares))
        working = {name: share for name, share in shares.items() if self.runners[name].state == "ready"}
        for name, share in (working or shares).items():
            self._credit[name] = self._credit.get(name, 0) + share
        name = max(working or shares, key=self._credit.__getitem__)
        self._credit[name] -= sum((working or shares).values())
        return name

    async def image(self, kind: bytes, body: bytes) -> tuple[int, bytes]:
        """Have an image made for the page: ``seen`` of a file, or ``sample`` of a class."""
        if self._images is None:
            self._images = Runner(
                "images",
                *(_IMAGES, self.folder.path, self.folder.path / "images.log"),
                timeout_s=_IMAGES_TIMEOUT_S,
                max_memory_bytes=_IMAGES_MEMORY_BYTES,
            )
            await self._images.start(once=False)
        return await self._images.ask(kind, body)

    async def add(self, record: DeploymentRecord) -> None:
        """Start a deployment whose run is in place, without traffic.

        Raises:
            DeployError: If there is one of that name, or it did not become ready.
        """
        async with self._changing:
            if check_deployment_name(record.name) in self.runners:
                raise DeployError(f"there is a deployment {record.name} already")
            runner = self._runner(record)
            try:
                await runner.start(once=True)
            except WorkerError as error:
                self.runners[record.name] = runner
                self._keep(deployments=(*self.record.deployments, dataclasses.replace(record, failed=True)))
                raise DeployError(f"deployment {record.name} did not become ready: {error}") from error
            try:
                self._keep(deployments=(*self.record.deployments, record))
            except BaseException:  # cancelled, too: no process stays that no record names
                await runner.stop()
                raise
            self.runners[record.name] = runner

    async def remove(self, name: str) -> None:
        """End a deployment without traffic and delete its files.

        Raises:
            DeployError: If there is none of that name, or it has traffic.
        """
        async with self._changing:
            if name not in self.runners:
                raise DeployError(f"there is no deployment {name[:64]!r}")
            if self.record.traffic.get(name):
                raise DeployError(
                    f"deployment {name} gets {self.record.traffic[name]} % of the traffic",
                    hint="give its share to another one first: cifarml endpoint traffic",
                )
            self._keep(
                deployments=tuple(each for each in self.record.deployments if each.name != name),
                traffic={each: share for each, share in self.record.traffic.items() if each != name},
            )
            await self.runners.pop(name).stop()
            await asyncio.to_thread(shutil.rmtree, self.folder.deployment(name), ignore_errors=True)

    async def set_traffic(self, traffic: dict[str, int]) -> None:
        """Divide the requests anew.

        Raises:
            DeployError: If they can't be divided so.
        """
        async with self._changing:
            check_traffic(traffic, {name: runner.state == "ready" for name, runner in self.runners.items()})
            self._keep(traffic={name: share for name, share in traffic.items() if share})
            self._credit.clear()

    def set_key(self, key: str) -> None:
        """Replace the key that callers show."""
        self.folder.write_key(key)
        self.key = key

    def set_port(self, port: int) -> None:
        """Say where it listens."""
        self._keep(port=port)

    def describe(self) -> dict[str, Any]:
        """Return the state of everything, for the control API."""
        live = {
            name: {
                "state": runner.state,
                "num_requests": runner.num_requests,
                "num_errors": runner.num_errors,
                "memory_bytes": runner.memory_bytes,
            }
            for name, runner in self.runners.items()
        }
        return {"record": dataclasses.asdict(self.record), "live": live}

    def _runner(self, record: DeploymentRecord) -> Runner:
        return Runner(
            record.name,
            *(Path(record.script), self.folder.model_dir(record), self.folder.worker_log(record.name)),
            timeout_s=record.timeout_s,
            max_memory_bytes=record.max_memory_bytes,
        )

    def _keep(self, **changes: Any) -> None:
        """Write the record first; what can't be written does not happen."""
        record = dataclasses.replace(self.record, **changes)
        try:
            self.folder.write(record)
        except OSError as error:
            raise DeployError(f"can't write {self.folder.path}: {error.strerror}") from error
        self.record = record
