"""The exceptions of cifarml, as a tree.

.. code-block:: text

    CifarMLError(message, hint=None)
    ├ SettingsError       a setting, flag or environment variable is wrong
    ├ DataError           images or labels can't be used
    │ ├ ArchiveError      an archive is damaged or unsafe
    │ ├ ImageError        an image can't be read
    │ └ DownloadError     a data set could not be fetched
    ├ ModelFileError      a model file or run is missing, damaged or not allowed
    ├ TrainingError       training could not start or go on
    ├ RegistryError       a model version is missing, or can't be registered
    │ └ GateError         a model is not better than the one it would replace
    ├ RequestError        what was sent to an endpoint can't be answered
    ├ DeployError         an endpoint or deployment did not come up, or is missing
    │ ├ SmokeTestError    a new deployment answered wrongly, or not at all
    │ └ EndpointTimeoutError  an endpoint did not answer in time
    └ CloudError          Azure said no, or could not be reached
      ├ CloudRegistryError  ... about models (a RegistryError, too)
      └ CloudDeployError    ... about endpoints (a DeployError, too)

A message says what failed and what was received; the hint is the next thing to do. The library
raises these and never prints or exits; the command line turns them into text and exit code 1.
"""

from __future__ import annotations

from typing import Any


class CifarMLError(Exception):
    """Base of every error that cifarml raises on purpose.

    Args:
        message: What failed and what was received.
        hint: What to do or type next, if there is something.

    Example:
        >>> str(CifarMLError("no such run: x", hint="list them with: cifarml runs list"))
        'no such run: x'
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep all that is known when the error crosses a process border."""
        return type(self), (self.message, self.hint), vars(self)


class SettingsError(CifarMLError):
    """A setting, flag or environment variable is wrong."""


class DataError(CifarMLError):
    """Images or labels can't be used as they are."""


class ArchiveError(DataError):
    """An archive is damaged, or unsafe to unpack."""


class ImageError(DataError):
    """An image can't be read.

    Args:
        message: What is wrong with it.
        hint: The next thing to do.
        code: The same in one word: ``not_an_image``, ``damaged_image`` or ``too_many_pixels``.
    """

    def __init__(self, message: str, hint: str | None = None, *, code: str = "damaged_image") -> None:
        super().__init__(message, hint)
        self.code = code


class DownloadError(DataError):
    """A data set could not be fetched."""


class ModelFileError(CifarMLError):
    """A model file or run is missing, damaged or not allowed."""


class TrainingError(CifarMLError):
    """Training could not start or go on."""


class RegistryError(CifarMLError):
    """A model version is missing, or can't be registered."""


class GateError(RegistryError):
    """A model is not better than the one it would replace."""


class RequestError(CifarMLError):
    """What was sent to an endpoint can't be answered.

    Args:
        code: What is wrong, in one word of :data:`cifarml.scoring.request.CODES`.
        message: What is wrong, for whoever sent it; nothing of what was sent stands in it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the code, too, when the error crosses a process border."""
        return type(self), (self.code, self.message)


class DeployError(CifarMLError):
    """An endpoint or a deployment did not come up, or is missing."""


class SmokeTestError(DeployError):
    """A new deployment answered wrongly, or not at all."""


class EndpointTimeoutError(DeployError):
    """An endpoint did not answer in time."""


class CloudError(CifarMLError):
    """Azure said no, or could not be reached.

    Args:
        message: What was tried, and what came back.
        hint: The next thing to do.
        code: The service's own word for it, such as ``"BlobNotFound"``.
        request_id: The service's number of the request, which its support asks for.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, code: str = "", request_id: str = ""
    ) -> None:
        super().__init__(f"{message} (request id {request_id})" if request_id else message, hint)
        self.code = code
        self.request_id = request_id


class CloudRegistryError(CloudError, RegistryError):
    """Azure said no to something about models."""


class CloudDeployError(CloudError, DeployError):
    """Azure said no to something about endpoints, or one did not come up there."""
