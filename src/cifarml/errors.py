"""Exceptions of cifarml.

```text
CifarMLError(message, hint=None)
├ SettingsError            invalid setting, flag or environment variable
├ DataError                unusable images or labels
│ ├ ArchiveError           damaged or unsafe archive
│ ├ ImageError             unreadable image
│ └ DownloadError          failed download of a data set
├ ModelFileError           missing, damaged or untrusted model file or run folder
├ TrainingError            training cannot start, continue or finish
├ RegistryError            missing model version, or failed registration
│ └ GateError              challenger is not better than the champion
├ RequestError             invalid request to an endpoint
├ DeployError              missing endpoint, or failed deployment
│ ├ SmokeTestError         new deployment failed its smoke test or canary
│ └ EndpointTimeoutError   endpoint did not respond in time
└ CloudError               Azure refused a request, or is unreachable
  ├ CloudRegistryError     ... while accessing models (also a RegistryError)
  └ CloudDeployError       ... while accessing endpoints (also a DeployError)
```

A message says what failed and what was received; the hint is one command or setting to try next. The
library raises these exceptions and never prints or exits; the command line prints the message and the
hint, and exits with code 1.
"""

from __future__ import annotations

from typing import Any


class CifarMLError(Exception):
    """Base class of all cifarml exceptions.

    Catch it to handle every failure that cifarml reports on purpose. Any other exception is a bug: please
    report it with its traceback.

    Args:
        message: What failed, and what was received.
        hint: Command to run or setting to change next, if there is one.

    Example:
        ```python
        try:
            run = cifarml.Run.open("runs/first")
        except cifarml.CifarMLError as error:
            print(error.message)
            print("Hint:", error.hint)
        ```
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Preserve all attributes when the error is pickled for another process."""
        return type(self), (self.message, self.hint), vars(self)


class SettingsError(CifarMLError):
    """Invalid setting, flag or environment variable.

    Raised when a value is out of range, of the wrong type, unknown or contradictory, in an argument, a
    command-line flag, an environment variable or a settings file, and when a feature requires an extra that
    is not installed.

    Typical causes: a misspelled setting (the hint suggests the closest name), a secret in `cifarml.toml`, a
    preset or device that does not exist, or flags that cannot be combined.

    What to do: correct the variable or the line of the file that the message names. `cifarml config show`
    lists every setting with its origin.
    """


class DataError(CifarMLError):
    """Unusable images or labels.

    Raised when a source does not exist, its layout is not recognized, or its images and labels do not fit
    together or do not fit the model.

    Typical causes: a wrong path, a class folder without images, images without labels, or a class that the
    model was not trained on.

    What to do: `cifarml data check SOURCE` reports every problem of a source, with the file it occurs in.
    """


class ArchiveError(DataError):
    """Damaged archive, or one that is unsafe to unpack.

    Raised while a `.zip` or `.tar` archive is read or unpacked.

    Typical causes: an incomplete download, a file that is not an archive, member names that point outside
    the target folder, or an archive that unpacks to many times its size (a decompression bomb).

    What to do: download or copy the archive again. If you trust its content, unpack it yourself and pass
    the folder.
    """


class ImageError(DataError):
    """Unreadable image.

    Raised when an image is missing, damaged, too large, or of an unsupported format, type or shape.
    `Predictor.predict_many` returns it in place of a prediction instead, so that one bad image does not
    fail the others.

    Typical causes: a file of another format than docs/guides/own-images.md lists, an incomplete file, an
    array of floats instead of uint8, or more than 67,108,864 pixels.

    What to do: convert the image to one of these formats, or the array to uint8.

    Args:
        message: What is wrong with the image.
        hint: What to do next.
        code: Category of the problem: `not_an_image`, `unsupported_image` (a known format that can't be
            decoded here, such as HEIC without the extra `heic`), `damaged_image`, `too_many_pixels` or
            `out_of_memory`.
    """

    def __init__(self, message: str, hint: str | None = None, *, code: str = "damaged_image") -> None:
        super().__init__(message, hint)
        self.code = code


class DownloadError(DataError):
    """Failed download of a data set.

    Raised when the official CIFAR-10 archive cannot be downloaded, or is not the published file.

    Typical causes: no network, a proxy, a server that is down, a full disk, or a mirror with another file
    (the SHA-256 is checked).

    What to do: run the command again, which resumes the download, or download the file yourself and pass
    its path. `CIFARML_CIFAR10_URL` selects a mirror.
    """


class ModelFileError(CifarMLError):
    """Missing, damaged or untrusted model file or run folder.

    Raised when a run or model is opened: every file is checked against the hash in the run's manifest, and
    files that could execute code are refused.

    Typical causes: a wrong path, a training that has not finished, a file that was changed or copied
    incompletely, or a file that does not belong in a run folder, such as a pickle.

    What to do: `cifarml runs list` lists the run folders and their states. Copy the folder again, resume
    the training, or train again.

    Attributes:
        newer: Whether a newer version of cifarml has written the run, which is not damaged then.
    """

    newer: bool = False


class TrainingError(CifarMLError):
    """Training that cannot start, continue or finish.

    Typical causes: a loss that is no longer finite, too little memory for the batch size, a full disk, a
    run that another process is training, a finished run that is to be resumed, or a failed Azure ML job.

    What to do: follow the hint, such as a smaller `--batch-size` or `--learning-rate`. A run with a
    checkpoint can be resumed with `cifarml train --resume RUN`.
    """


class RegistryError(CifarMLError):
    """Missing model version or alias, or failed registration.

    Typical causes: a version or alias that does not exist, an invalid name, or another process that changed
    the same alias at the same time.

    What to do: `cifarml models list` lists the registered versions and their aliases.
    """


class GateError(RegistryError):
    """Challenger that is not significantly better than the champion.

    Raised by `promote_if_better` and `cifarml models promote --if-better`; the champion is unchanged. The
    message lists each check of the promotion gate that failed.

    Typical causes: the models do not differ significantly, a class has lower recall, or the test set is too
    small to show a difference.

    What to do: compare on more images, train for longer, or promote without the gate.
    """


class RequestError(CifarMLError):
    """Invalid request to an endpoint.

    Raised while a request is parsed; the endpoint sends it to the client as `{"error": {"code", "message"}}`
    with the HTTP status of the code.

    Typical causes: a body that is not JSON, a missing field, base64 that cannot be decoded, or too many or
    too large images.

    What to do: correct the request. The page about endpoints lists every code.

    Args:
        code: Category of the problem, one of `cifarml.scoring.request.CODES`.
        message: Explanation for the client; it contains nothing of the request's content.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Preserve the code when the error is pickled for another process."""
        return type(self), (self.code, self.message)


class DeployError(CifarMLError):
    """Missing endpoint or deployment, or one that failed to start.

    If a deployment fails, traffic is restored and the new deployment is deleted before this is raised.

    Typical causes: a name that does not exist or is used already, a scoring script that fails on import, or
    an Azure container that does not become ready.

    What to do: `cifarml endpoint logs` shows the log of the deployment, `cifarml endpoint show` its state.
    """


class SmokeTestError(DeployError):
    """New deployment that failed its smoke test or canary.

    Raised during a rollout when the new deployment gives wrong predictions, accepts an invalid image, leaks
    memory, fails requests or is much slower than the current one. Traffic is restored and the new deployment
    is deleted.

    Typical causes: sample images of other classes than the model was trained on, or a modified scoring
    script.

    What to do: pass images like the training images with `--data`, or check the model with
    `cifarml evaluate`.
    """


class EndpointTimeoutError(DeployError):
    """Endpoint that did not respond in time.

    Typical causes: a deployment that is still starting, an overloaded machine, or a model that hangs.

    What to do: try again; `cifarml endpoint logs` shows the log of a deployment.
    """


class CloudError(CifarMLError):
    """Refused request to Azure, or failed connection.

    Typical causes: an expired sign-in, a missing role, a wrong account, container or workspace name, an
    exceeded quota, a proxy, or no network.

    What to do: `cifarml doctor` checks the sign-in and each permission. Quote the request id to Azure
    support.

    Args:
        message: What was attempted, and the reason for the failure.
        hint: What to do next.
        code: Error code of the service, such as `"BlobNotFound"`; empty if unknown.
        request_id: Request id of the service, for Azure support; it is appended to the message.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, code: str = "", request_id: str = ""
    ) -> None:
        super().__init__(f"{message} (request id {request_id})" if request_id else message, hint)
        self.code = code
        self.request_id = request_id


class CloudRegistryError(CloudError, RegistryError):
    """Failure of Azure ML while registering or fetching a model.

    It is a `CloudError` and a `RegistryError`, so that either handler catches it. Causes and remedies are
    those of `CloudError`.
    """


class CloudDeployError(CloudError, DeployError):
    """Failure of Azure ML while creating, updating or querying an endpoint.

    It is a `CloudError` and a `DeployError`, so that either handler catches it. Causes and remedies are
    those of `CloudError`; the log of a container that does not start is shown by `cifarml endpoint logs`.
    """
