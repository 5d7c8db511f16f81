"""Errors of the FastAPI routes, rendered as OpenAI shapes them. Keyed by exception class, apart from the routes."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError, InvalidRequestError, MethodNotAllowedError, NotFoundError

logger = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_fault)


def _render(error: GatewayError, status: int | None = None) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), status or error.status, headers, "application/json")


async def _on_gateway_error(_: Request, error: Exception) -> Response:
    return _render(error if isinstance(error, GatewayError) else GatewayError("The server had an internal error."))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path[:200]
    if status == 404:
        return _render(NotFoundError(f"Unknown path: {request.method} {path}."))
    if status == 405:
        return _render(MethodNotAllowedError(f"{path} does not take {request.method}."))
    return _render(InvalidRequestError(str(getattr(error, "detail", "Invalid request."))), status)


async def _on_invalid(_: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    first = faults[0] if faults else {"loc": (), "msg": "invalid"}
    param = ".".join(str(step) for step in first["loc"][1:]) or None
    return _render(InvalidRequestError(f"{param}: {first['msg']}", param=param))


async def _on_fault(_: Request, error: Exception) -> Response:
    logger.error("unexpected fault", exc_info=error)
    return _render(GatewayError("The server had an internal error."))
