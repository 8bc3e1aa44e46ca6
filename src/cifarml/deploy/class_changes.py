"""Classes that a new model adds to those of the live one, and those that it removes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.data.describe import list_items, shorten
from cifarml.deploy.base import Endpoint, EndpointHost
from cifarml.errors import CifarMLError
from cifarml.images import encode_image
from cifarml.run import Run


class ClassChanges(NamedTuple):
    """Difference between the classes of a model and those of the live deployment.

    Attributes:
        live: Name of the live deployment; empty if none responds.
        added: Classes that only the new model knows.
        removed: Classes that only the live model knows.
    """

    live: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Lines about the differences; empty without any."""
        return [
            list_items(
                f"classes {change}, compared with live {self.live}: ",
                [*map(shorten, names)],
                end=f", ... ({len(names):,} in total)",
            )
            for change, names in (("added", self.added), ("removed", self.removed))
            if names
        ]


def compare_classes(host: EndpointHost, endpoint: Endpoint, run: Run) -> ClassChanges:
    """Compare the classes of a run with those in a response of the deployment with the most traffic."""
    live = max(endpoint.traffic, key=endpoint.traffic.__getitem__, default="")
    if not endpoint.traffic.get(live):
        return ClassChanges()
    image = encode_image(np.full(IMAGE_SHAPE, 128, np.uint8))
    try:
        known = host.invoke(endpoint.name, image, deployment=live).probabilities
    except CifarMLError:  # the rollout must not depend on a deployment that may be what it repairs
        return ClassChanges()
    names = run.class_names
    return ClassChanges(
        live,
        tuple(name for name in names if name not in known),
        tuple(sorted(name for name in known if name not in names)),
    )
