"""Traffic router: forward requests to deployments; add, remove and weight deployments.

A request goes to the deployment that its header names, or to one picked by traffic share. If that one is
unavailable, the request is sent to another one with traffic, so that a failing canary loses no requests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any, Final

from cifarml.errors import DeployError
from cifarml.serve.batching_queue import BatchingQueue, Busy, Unavailable
from cifarml.serve.endpoint_folder import (
    DeploymentRecord,
    EndpointFolder,
    check_deployment_name,
    check_traffic,
)
from cifarml.serve.worker_process import WorkerError

_IMAGES: Final = Path(__file__).with_name("page_images.py")
_IMAGES_MEMORY_BYTES: Final = 1 << 30
_IMAGES_TIMEOUT_S: Final = 10.0


class UnknownDeployment(Exception):  # noqa: N818  # becomes a response
    """The request names a deployment that does not exist, or no deployment receives traffic."""


class TrafficRouter:
    """Router over the deployments of one endpoint."""

    def __init__(self, folder: EndpointFolder) -> None:
        self.folder = folder
        self.record = folder.read()
        self.key = folder.read_key()
        self.queues: dict[str, BatchingQueue] = {}
        self._credit: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._images: BatchingQueue | None = None

    def open(self) -> None:
        """Start all recorded deployments without waiting for them."""
        for record in self.record.deployments:
            self.queues[record.name] = queue = self._make_queue(record)
            if record.failed:
                queue.state = "failed"
            else:
                queue.start()

    async def close(self) -> None:
        """Finish pending requests and stop all workers."""
        queues = [*self.queues.values(), *([self._images] if self._images else [])]
        await asyncio.gather(*(queue.stop() for queue in queues))

    @property
    def ready(self) -> bool:
        """True if at least one deployment receives traffic and all that do are ready."""
        shares = [name for name, share in self.record.traffic.items() if share]
        return bool(shares) and all(self.queues[name].state == "ready" for name in shares)

    async def score(
        self, content_type: bytes, body: bytes, deployment: str | None = None
    ) -> tuple[int, bytes, str]:
        """Forward a request to a deployment; by default, one picked by traffic share.

        Returns:
            HTTP status, JSON document and name of the deployment that handled the request.

        Raises:
            UnknownDeployment: If no deployment has that name, or none receives traffic.
            Unavailable: If no deployment is available.
        """
        if deployment is not None:
            if deployment not in self.queues:
                raise UnknownDeployment(f"deployment {deployment[:64]!r} does not exist")
            return *await self.queues[deployment].submit(content_type, body), deployment
        first = self._pick_deployment()
        others = (name for name, share in self.record.traffic.items() if share and name != first)
        refusal: Unavailable | None = None
        for name in (first, *others):
            try:
                status, answer = await self.queues[name].submit(content_type, body)
            except Unavailable as error:
                if refusal is None or isinstance(error, Busy):
                    refusal = error
            else:
                return status, answer, name
        raise refusal or UnknownDeployment(first)

    def _pick_deployment(self) -> str:
        """Pick a deployment by smooth weighted round-robin, which gives exact shares in any 100 requests."""
        shares = {name: share for name, share in self.record.traffic.items() if share}
        if not shares:
            raise UnknownDeployment("no deployment receives traffic; deploy a model first")
        if len(shares) == 1:
            return next(iter(shares))
        working = {name: share for name, share in shares.items() if self.queues[name].state == "ready"}
        for name, share in (working or shares).items():
            self._credit[name] = self._credit.get(name, 0) + share
        name = max(working or shares, key=self._credit.__getitem__)
        self._credit[name] -= sum((working or shares).values())
        return name

    async def image(self, kind: bytes, body: bytes) -> tuple[int, bytes]:
        """Render an image for the page: a file as the network sees it, or the sample image of a class."""
        if self._images is None:
            self._images = BatchingQueue(
                "images",
                *(_IMAGES, self.folder.path, self.folder.path / "images.log"),
                timeout_s=_IMAGES_TIMEOUT_S,
                max_memory_bytes=_IMAGES_MEMORY_BYTES,
            )
            self._images.start()
        return await self._images.submit(kind, body)

    async def add(self, record: DeploymentRecord) -> None:
        """Start a deployment whose run is already copied; it receives no traffic yet.

        Raises:
            DeployError: If the name is taken, or the deployment does not become ready.
        """
        async with self._changing:
            if check_deployment_name(record.name) in self.queues:
                raise DeployError(f"deployment {record.name} already exists")
            queue = self._make_queue(record)
            try:
                await queue.start_worker()
            except WorkerError as error:
                self.queues[record.name] = queue
                self._update_record(
                    deployments=(*self.record.deployments, dataclasses.replace(record, failed=True))
                )
                raise DeployError(f"deployment {record.name} did not become ready: {error}") from error
            try:
                self._update_record(deployments=(*self.record.deployments, record))
            except BaseException:  # also when cancelled: no process may run without a record
                await queue.stop()
                raise
            queue.start()
            self.queues[record.name] = queue

    async def remove(self, name: str) -> None:
        """Stop a deployment without traffic and delete its files.

        Raises:
            DeployError: If the deployment does not exist or receives traffic.
        """
        async with self._changing:
            if name not in self.queues:
                raise DeployError(f"deployment {name[:64]!r} does not exist")
            if self.record.traffic.get(name):
                raise DeployError(
                    f"deployment {name} receives {self.record.traffic[name]} % of the traffic",
                    hint="shift its traffic to another deployment first: cifarml endpoint traffic",
                )
            self._update_record(
                deployments=tuple(each for each in self.record.deployments if each.name != name),
                traffic={each: share for each, share in self.record.traffic.items() if each != name},
            )
            await self.queues.pop(name).stop()
            await asyncio.to_thread(shutil.rmtree, self.folder.deployment(name), ignore_errors=True)

    async def set_traffic(self, traffic: dict[str, int], *, restore: bool = False) -> None:
        """Set the traffic shares.

        Raises:
            DeployError: If the shares are invalid, or a deployment that would receive more is not ready
                (unless earlier shares are restored).
        """
        async with self._changing:
            ready = {name: queue.state == "ready" for name, queue in self.queues.items()}
            check_traffic(traffic, ready, traffic if restore else self.record.traffic)
            self._update_record(traffic={name: share for name, share in traffic.items() if share})
            self._credit.clear()

    def set_key(self, key: str) -> None:
        """Replace the key that clients authenticate with."""
        self.folder.write_key(key)
        self.key = key

    def set_port(self, port: int) -> None:
        """Record the port that the server listens on."""
        self._update_record(port=port)

    def describe(self) -> dict[str, Any]:
        """Return the record and the live state of all deployments, for the admin API."""
        live = {
            name: {
                "state": queue.state,
                "num_requests": queue.num_requests,
                "num_errors": queue.num_errors,
                "memory_bytes": queue.memory_bytes,
            }
            for name, queue in self.queues.items()
        }
        return {"record": dataclasses.asdict(self.record), "live": live}

    def _make_queue(self, record: DeploymentRecord) -> BatchingQueue:
        return BatchingQueue(
            record.name,
            *(Path(record.script), self.folder.model_dir(record), self.folder.worker_log(record.name)),
            timeout_s=record.timeout_s,
            max_memory_bytes=record.max_memory_bytes,
        )

    def _update_record(self, **changes: Any) -> None:
        """Write the changed record to disk, then use it."""
        record = dataclasses.replace(self.record, **changes)
        try:
            self.folder.write(record)
        except OSError as error:
            raise DeployError(f"cannot write {self.folder.path}: {error.strerror}") from error
        self.record = record
