"""Validate request bodies against azure-ai-ml's generated models."""

from __future__ import annotations

import datetime as dt
import re
import sys
import types
import typing
from typing import Any

from tests.emulators.azureml.web import AzureError

_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
_SIMPLE: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


def check(model: str, body: Any) -> None:
    """Refuse a body that is not a ``model`` of azure.ai.ml._restclient.arm_ml_service.models."""
    from azure.ai.ml._restclient.arm_ml_service import models

    problems: list[str] = []
    _check_model(getattr(models, model), body, "$", problems)
    if problems:
        raise AzureError(400, "ValidationError", f"The request is invalid ({model}): {'; '.join(problems)}")


def _check_model(model: Any, body: Any, where: str, problems: list[str]) -> None:
    if not isinstance(body, dict):
        problems.append(f"{where} must be an object, not {body!r:.60}")
        return
    model = _subclass(model, body)
    model._deserialize(body, [])  # must not raise
    fields = {field._rest_name: (name, field) for name, field in model._attr_to_rest_field.items()}
    hints = _annotations(model)
    for key, value in body.items():
        if key not in fields:
            problems.append(f"{where}.{key} is unknown to {model.__name__}")
        elif value is not None:
            _check_value(hints.get(fields[key][0], Any), value, f"{where}.{key}", problems)
    for key, (name, field) in fields.items():
        if field._visibility != ["read"] and not _is_optional(hints.get(name, Any)) and body.get(key) is None:
            problems.append(f"{where}.{key} is missing")


def _subclass(model: Any, body: dict[str, Any]) -> Any:
    values = [value for value in body.values() if isinstance(value, str)]
    for _ in range(4):  # discriminators may nest
        known = vars(model).get("__mapping__") or {}
        found = next((known[value] for value in values if value in known), model)
        if found is model or not issubclass(found, model):
            break
        model = found
    return model


def _annotations(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        names = vars(sys.modules[base.__module__]) | {"_models": _models()}
        for name, hint in vars(base).get("__annotations__", {}).items():
            found[name] = _resolved(hint, names)
    return found


def _models() -> Any:
    from azure.ai.ml._restclient.arm_ml_service import models

    return models


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    return eval(hint, names) if isinstance(hint, str) else hint


def _is_optional(hint: Any) -> bool:
    return hint is Any or type(None) in typing.get_args(hint)


def _check_value(hint: Any, value: Any, where: str, problems: list[str]) -> None:
    hint = _resolved(hint, {"_models": _models(), **vars(typing)})
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        kinds = [kind for kind in arguments if kind is not type(None)]
        if str in kinds or len(kinds) > 1:
            if not isinstance(value, str) and str in kinds:
                problems.append(f"{where} must be a string, not {value!r:.60}")
            return
        _check_value(kinds[0], value, where, problems)
    elif origin in {dict, list}:
        _check_items(origin, arguments[-1], value, where, problems)
    elif hint is dt.timedelta:
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            problems.append(f"{where} must be a duration, not {value!r:.60}")
    elif hint in _SIMPLE:
        if not isinstance(value, _SIMPLE[hint]) or (isinstance(value, bool) and hint is not bool):
            problems.append(f"{where} must be {hint.__name__}, not {value!r:.60}")
    elif hasattr(hint, "_deserialize"):
        _check_model(hint, value, where, problems)


def _check_items(kind: Any, hint: Any, value: Any, where: str, problems: list[str]) -> None:
    if not isinstance(value, kind):
        problems.append(f"{where} must be {'a list' if kind is list else 'an object'}, not {value!r:.60}")
        return
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if item is None or (isinstance(item, int) and hint is str):
            continue  # the service converts numbers to strings; the client relies on it for hash_version
        _check_value(hint, item, f"{where}.{key}", problems)
