"""Look up the digest of a container image in its registry.

Azure ML recommends the tag ``latest`` for its images, so that they receive security updates
(https://learn.microsoft.com/azure/machine-learning/concept-vulnerability-management). For reproducibility,
the digest is stored as a tag of the deployment or job.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import requests

DIGEST_TAG: Final = "image_digest"
"""Tag of deployments and jobs; its value is ``"unknown"`` if the lookup failed."""

_TIMEOUT_S: Final = 5.0
_MANIFESTS: Final = ", ".join(
    f"application/vnd.{name}+json"
    for name in (
        "oci.image.index.v1",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)


def find_image_digest(image: str, on_failure: Callable[[str], None]) -> str:
    """Look up the current digest of a public image's tag.

    Args:
        image: Registry, repository and tag, such as ``"mcr.microsoft.com/azureml/name:latest"``.
        on_failure: Called with a message if the lookup fails.

    Returns:
        The digest, such as ``"sha256:1f0c..."``; ``"unknown"`` if the lookup fails.
    """
    host, _, name = image.partition("/")
    repository, _, tag = name.partition(":")
    try:
        # https://github.com/opencontainers/distribution-spec/blob/main/spec.md#checking-if-content-exists-in-the-registry
        response = requests.head(
            f"https://{host}/v2/{repository}/manifests/{tag}",
            headers={"Accept": _MANIFESTS},
            timeout=_TIMEOUT_S,
        )
        response.raise_for_status()
        digest = response.headers.get("Docker-Content-Digest", "")
        if re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return digest
        reason = "the response has no digest"
    except requests.RequestException as error:
        reason = type(error).__name__
    on_failure(f"cannot look up the digest of {image} ({reason}): tag {DIGEST_TAG} is `unknown`")
    return "unknown"
