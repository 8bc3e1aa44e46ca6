"""Pydantic models of an endpoint's requests and responses, for OpenAPI, tests and docs/reference/http-api.md.

The scoring script itself does not use pydantic; tests validate its responses against these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from cifarml.imaging.formats import FORMAT_NAMES
from cifarml.scoring.multipart import FORM
from cifarml.scoring.request import BINARY, CODES, IMAGE_TYPES, MAX_BODY_BYTES, MAX_IMAGES

SERVER_CODES: Final[Mapping[str, tuple[int, str]]] = {
    "bad_http": (400, "invalid HTTP request"),
    "unauthorized": (401, "missing or invalid key"),
    "wrong_origin": (403, "the request is from a web page of another origin, which is not allowed"),
    "not_found": (404, "the path does not exist"),
    "unknown_deployment": (
        404,
        "the deployment in the azureml-model-deployment header does not exist, or none receives traffic",
    ),
    "too_slow": (408, "the request took too long to arrive"),
    "wrong_host": (421, "the Host header is not an allowed name of the endpoint"),
    "busy": (429, "too many requests; retry after the number of seconds in Retry-After"),
    "headers_too_large": (431, "the request headers are too large"),
    "internal": (500, "internal server error; see the log"),
    "not_ready": (503, "a deployment that receives traffic is not ready"),
    "unavailable": (503, "no deployment is available; retry after the number of seconds in Retry-After"),
    "timeout": (504, "the deployment did not respond in time"),
}
"""Error codes of the local server, in addition to :data:`cifarml.scoring.request.CODES`."""

_ALL_CODES: Final = {**CODES, **SERVER_CODES}

_EXAMPLE_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)

Base64Image = Annotated[
    str,
    Field(
        description=f"A base64-encoded {FORMAT_NAMES} file. "
        "Line breaks are allowed; a `data:` prefix is not.",
        examples=[_EXAMPLE_IMAGE],
    ),
]
"""Base64-encoded image file."""


class ImageRequest(BaseModel):
    """Request with one image."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["images"]}})

    imagebase64: Base64Image


class ImagesRequest(BaseModel):
    """Request with several images."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["imagebase64"]}})

    images: list[Base64Image] = Field(
        description="Images to classify.",
        min_length=1,
        max_length=MAX_IMAGES,
        examples=[[_EXAMPLE_IMAGE] * 2],
    )


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelVersion(_Answer):
    """Model that made the prediction."""

    name: str = Field(description="Model name.", examples=["cifar10"])
    version: str = Field(description="Model version in the registry.", examples=["3"])


Probability = Annotated[float, Field(ge=0, le=1)]


class ImagePrediction(_Answer):
    """Prediction for one image."""

    result: str = Field(description="Predicted class: the most probable one.", examples=["ship"])
    probability: Probability = Field(description="Probability of the predicted class.", examples=[0.93])
    probabilities: dict[str, Probability] = Field(
        description="Probability of each class, in descending order; they sum to 1.",
        examples=[{"ship": 0.93, "airplane": 0.05, "truck": 0.02}],
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        values = list(self.probabilities.values())
        if values != sorted(values, reverse=True) or abs(sum(values) - 1) > 1e-3:
            raise ValueError("probabilities must be in descending order and sum to 1")
        if (self.result, self.probability) != next(iter(self.probabilities.items())):
            raise ValueError("result and probability must equal the first entry of probabilities")
        return self


class ImageAnswer(ImagePrediction):
    """Response to a request with one image."""

    model: ModelVersion


def _known(code: str) -> str:
    if code not in _ALL_CODES:
        raise ValueError(f"unknown error code: {code}")
    return code


ErrorCode = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*_ALL_CODES]})]


class ErrorDetail(_Answer):
    """Error code and message."""

    code: ErrorCode = Field(description="Machine-readable error code.", examples=["not_base64"])
    message: str = Field(
        description="Human-readable message. It never contains any part of the request.",
        examples=["the image is not valid base64"],
    )


class ErrorAnswer(_Answer):
    """Error of a request, or of one image in a list."""

    error: ErrorDetail


class ImagesAnswer(_Answer):
    """Response to a request with several images."""

    predictions: list[ImagePrediction | ErrorAnswer] = Field(
        description="One entry per image, in the order of the request: its prediction or its error."
    )
    model: ModelVersion


_FILE: Final = {"type": "string", "format": "binary"}

SCORE_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"At most {MAX_BODY_BYTES:,} bytes; may be compressed with `Content-Encoding: gzip`.",
        "content": {
            "application/json": {
                "schema": {"oneOf": [model.model_json_schema() for model in (ImageRequest, ImagesRequest)]}
            },
            **{kind: {"schema": _FILE} for kind in (*sorted(IMAGE_TYPES), BINARY)},
            FORM: {"schema": {"type": "object", "properties": {"image": _FILE}, "required": ["image"]}},
        },
    }
}
"""OpenAPI 3.1 request body of the scoring route, for FastAPI's ``openapi_extra``."""

SCORE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": ImageAnswer | ImagesAnswer, "description": "A prediction, or a list of predictions."},
    **{
        status: {
            "model": ErrorAnswer,
            "description": f"{HTTPStatus(status).phrase}: "
            + ", ".join(code for code, (its_status, _) in _ALL_CODES.items() if its_status == status),
        }
        for status in sorted({status for status, _ in _ALL_CODES.values()})
    },
}
"""Responses of the scoring route by HTTP status, for FastAPI's ``responses``."""
