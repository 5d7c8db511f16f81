"""The OpenAPI description: FastAPI's own, joined by the inference routes, which are not FastAPI's."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gateway.api import speech
from gateway.api.dialects import INFERENCE_PATHS, Dialect
from gateway.api.form import FILE

_REFERENCES = {
    Dialect.OPENAI: "https://platform.openai.com/docs/api-reference",
    Dialect.RESPONSES: "https://platform.openai.com/docs/api-reference/responses",
    Dialect.ANTHROPIC: "https://docs.anthropic.com/en/api/messages",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document that /openapi.json serves."""
    document = FastAPI.openapi(app)
    for path, dialect in INFERENCE_PATHS.items():
        document["paths"].setdefault(path, {"post": _operation(path, dialect)})
    for path in speech.PATHS:
        document["paths"].setdefault(path, {"post": _hearing(path)})
    return document


def _operation(path: str, dialect: Dialect) -> dict[str, Any]:
    return {
        "tags": ["inference"],
        "operationId": path.strip("/").replace("/", "_"),
        "summary": f"{path}, answered by the model's vLLM engine",
        "externalDocs": {"url": _REFERENCES[dialect]},
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {"model": {"type": "string"}, "stream": {"type": "boolean"}},
                    }
                }
            },
        },
        "responses": {
            "200": {
                "description": "The answer: one JSON object, or server-sent events where `stream` is true.",
                "content": {"application/json": {}, "text/event-stream": {}},
            },
            "default": {"description": "An error, shaped as this API shapes it.", "content": {"application/json": {}}},
        },
    }


def _hearing(path: str) -> dict[str, Any]:
    properties = {
        FILE: {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {"type": "string", "enum": list(speech.Format), "default": speech.Format.JSON},
        "temperature": {"type": "number", "default": 0},
        "stream": {"type": "boolean", "default": False},
    }
    form = {"schema": {"type": "object", "required": [FILE], "properties": properties}}
    return _operation(path, Dialect.OPENAI) | {
        "summary": f"{path}, by way of the model's chat",
        "externalDocs": {"url": f"{_REFERENCES[Dialect.OPENAI]}/audio"},
        "requestBody": {"required": True, "content": {"multipart/form-data": form}},
    }
