"""Scoring script of a deployment, the same in Azure ML and locally.

Azure ML's inference server loads this file by its path and calls :func:`init` once per process and
:func:`run` for each request; the local server calls :func:`answer` with a batch of requests. It requires
only numpy, Pillow and ONNX Runtime.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

if not __package__:  # loaded by its path: make the package importable
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from PIL import Image

from cifarml.errors import ImageError, ModelFileError, RequestError
from cifarml.predict import Prediction, Predictor
from cifarml.run import MANIFEST, Run
from cifarml.scoring.request import CODES, MAX_BODY_BYTES, Request, inflate, read_request

try:  # installed in Azure ML's image only
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
except ImportError:
    AMLResponse = rawhttp = None

MODEL_DIR: Final = "AZUREML_MODEL_DIR"
"""Environment variable with the path of the model folder: ``.../<name>/<version>``."""

_MAX_DRAINED_BYTES: Final = 10 * MAX_BODY_BYTES

_NUM_THREADS: Final = 2
"""Inference is a third faster than with one thread; more threads gain little on 32x32 images."""

_log = logging.getLogger("cifarml.score")


class _Served(NamedTuple):
    predictor: Predictor
    model: dict[str, str]


_served: _Served | None = None


def init() -> None:
    """Load the model from the folder AZUREML_MODEL_DIR, or from the only folder in it.

    The model's name and version are taken from the path, ``.../<name>/<version>``.

    Raises:
        ModelFileError: If the model is missing or damaged, or fails to predict; it is logged in one line.
    """
    global _served  # noqa: PLW0603  # Azure ML's server calls module functions
    try:
        _served = None
        path = Path(os.environ.get(MODEL_DIR, "")).absolute()
        predictor = Run.open(_find_run(path)).predictor(num_threads=_NUM_THREADS)
        _served = _Served(predictor, {"name": path.parent.name, "version": path.name})
        _warm_up()
    except (ModelFileError, OSError) as error:
        _served = None
        _log.error("the model can't be served: %s", error)  # one line, not a traceback
        raise ModelFileError(str(error)) from None
    _log.info("serving %s:%s", *_served.model.values())


def _find_run(path: Path) -> Path:
    if not os.environ.get(MODEL_DIR):
        raise ModelFileError(f"{MODEL_DIR} is not set; it must be the path of the model folder")
    if not path.is_dir():
        raise ModelFileError(f"the model folder {path} does not exist")
    if not path.parent.name:
        raise ModelFileError(f"{MODEL_DIR} must end in <model name>/<version>. Received: {path}")
    if (path / MANIFEST).exists():
        return path
    folders = [entry for entry in path.iterdir() if entry.is_dir()]
    if len(folders) != 1:
        raise ModelFileError(f"{path} must contain {MANIFEST}, or exactly one folder that contains it")
    return folders[0]


def _warm_up() -> None:
    """Predict once, so that the first request is fast and a broken model fails at startup."""
    Image.init()  # otherwise Pillow loads most decoders at the first unknown format
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "gray").save(file, "PNG")
    ((status, body),) = answer([("image/png", file.getvalue())])
    if status != 200:
        raise ModelFileError(f"the model failed on a test image: {json.loads(body)['error']['message']}")


def answer(requests: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    """Score a batch of requests; an invalid one does not affect the others.

    Args:
        requests: The content type and body of each request.

    Returns:
        The HTTP status and JSON body of each response, in order.

    Raises:
        RuntimeError: If no model is loaded.
    """
    if _served is None:
        raise RuntimeError("init() must be called first")
    parsed = [_try_read(*request) for request in requests]
    valid = [request for request in parsed if isinstance(request, Request)]
    images = [image for request in valid for image in request.images if isinstance(image, bytes)]
    try:
        results = iter(_predict(_served.predictor, images))
    except Exception:  # noqa: BLE001  # ONNX Runtime's exceptions have no common base
        _log.exception("the model failed")
        parsed = [request if isinstance(request, RequestError) else _model_failed() for request in parsed]
        results = iter(())
    return [_respond(request, results, _served.model) for request in parsed]


def _try_read(content_type: str, body: bytes) -> Request | RequestError:
    try:
        return read_request(content_type, body)
    except RequestError as error:
        return error


def _predict(predictor: Predictor, images: Sequence[bytes]) -> list[Prediction | RequestError]:
    return [
        # The error's own message could quote the request.
        RequestError(result.code, CODES[result.code][1]) if isinstance(result, ImageError) else result
        for result in predictor.predict_many(images)
    ]


def _respond(
    request: Request | RequestError, results: Iterator[Prediction | RequestError], model: dict[str, str]
) -> tuple[int, bytes]:
    """Build the response to one request; consume one result for each of its valid images."""
    if isinstance(request, RequestError):
        return _refuse(request)
    answers = [next(results) if isinstance(image, bytes) else image for image in request.images]
    if not request.is_list and isinstance(answers[0], RequestError):
        return _refuse(answers[0])
    entries = [_to_entry(answer) for answer in answers]
    content = {"predictions": entries} if request.is_list else entries[0]
    try:
        return 200, _to_json(content | {"model": model})
    except ValueError:  # NaN is not valid JSON
        _log.exception("the model returned NaN probabilities")
        return _refuse(_model_failed())


def _to_entry(answer: Prediction | RequestError) -> dict[str, Any]:
    if isinstance(answer, RequestError):
        return {"error": {"code": answer.code, "message": answer.message}}
    return {
        "result": answer.label,
        "probability": answer.probability,
        "probabilities": answer.probabilities,
    }


def _model_failed() -> RequestError:
    return RequestError("model_failed", CODES["model_failed"][1])


def _refuse(error: RequestError) -> tuple[int, bytes]:
    return CODES[error.code][0], _to_json(_to_entry(error))


def _to_json(content: dict[str, Any]) -> bytes:
    return _encode(content).encode()


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def run(request: Any) -> Any:
    """Score one request.

    Args:
        request: Azure ML's ``AMLRequest``, or the JSON body of a request as str or bytes.

    Returns:
        An ``AMLResponse``, or the decoded JSON of the response if the request is str or bytes.
    """
    if isinstance(request, str | bytes):
        body = request.encode(errors="surrogatepass") if isinstance(request, str) else request
        return json.loads(answer([("application/json", body)])[0][1])
    if request.method == "OPTIONS":  # CORS preflight; the server adds the headers
        return AMLResponse("", 200)
    try:
        if request.method != "POST":
            raise RequestError("wrong_method", CODES["wrong_method"][1])
        body = inflate(request.headers.get("Content-Encoding", ""), _read_body(request.stream))
    except RequestError as error:
        status, content = _refuse(error)
    else:
        status, content = answer([(request.content_type or "", body)])[0]
    return AMLResponse(content, status, {"Content-Type": "application/json"})


if rawhttp is not None:
    rawhttp(run)  # receive requests unparsed: images, and invalid JSON


def _read_body(stream: BinaryIO) -> bytes:
    """Read a body; drain one that is too large, so that the client reads the error response."""
    parts, size_bytes = [], 0
    try:
        while size_bytes < _MAX_DRAINED_BYTES and (part := stream.read(2**20)):
            if size_bytes <= MAX_BODY_BYTES:
                parts.append(part)
            size_bytes += len(part)
    except Exception:  # noqa: BLE001  # gunicorn's and Flask's exceptions have no common base
        raise RequestError("broken_body", CODES["broken_body"][1]) from None
    return b"".join(parts)
