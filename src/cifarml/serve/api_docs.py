"""API reference at ``/docs``: the OpenAPI document as HTML, without external resources."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def render_reference(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as an HTML page."""
    routes = [
        _route(method.upper(), path, about)
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]
    schemas = [
        f"<h3 id={escape(json.dumps(name))}>{escape(name)}</h3><pre>{_json(schema)}</pre>"
        for name, schema in document.get("components", {}).get("schemas", {}).items()
    ]
    title = escape(document["info"]["title"])
    intro = escape(document["info"].get("description", ""))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="page/icon.svg" type="image/svg+xml"></head>'
        f"<body><main><h1>{title}</h1><p>{intro}</p>"
        '<p>OpenAPI document: <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(routes)}<h2>Schemas</h2>{''.join(schemas)}</main></body></html>"
    )


def _route(method: str, path: str, about: dict[str, Any]) -> str:
    bodies = about.get("requestBody", {}).get("content", {})
    requests = [
        f"<p>Request body: {escape(kind)}</p>{_examples(content)}" for kind, content in bodies.items()
    ]
    parameters = [
        f"<p>{each['in']} <code>{escape(each['name'])}</code>: {escape(each.get('description', ''))}</p>"
        for each in about.get("parameters", [])
    ]
    responses = [
        f"<dt>{escape(status)}</dt><dd>{escape(response['description'])}</dd>"
        for status, response in about["responses"].items()
    ]
    return (
        f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(about.get('description', ''))}</p>"
        f"{''.join(parameters)}{''.join(requests)}<dl>{''.join(responses)}</dl>"
    )


def _examples(content: dict[str, Any]) -> str:
    return "".join(f"<pre>{_json(each['value'])}</pre>" for each in content.get("examples", {}).values())


def _json(value: object) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False))
