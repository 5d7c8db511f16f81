"""Errors of the FastAPI routes, in the shape of the API that the client speaks. Keyed by exception class."""

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


def _render(request: Request, error: GatewayError, status: int | None = None) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    # What only Anthropic's clients send, by which these routes tell them apart.
    body = error.anthropic_body() if "anthropic-version" in request.headers else error.body()
    return Response(body, status or error.status, headers, "application/json")


async def _on_gateway_error(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, GatewayError) else GatewayError("The server had an internal error.")
    return _render(request, known)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path[:200]
    if status == 404:
        return _render(request, NotFoundError(f"Unknown path: {request.method} {path}."))
    if status == 405:
        return _render(request, MethodNotAllowedError(f"{path} does not take {request.method}."))
    return _render(request, InvalidRequestError(str(getattr(error, "detail", "Invalid request."))), status)


async def _on_invalid(request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    first = faults[0] if faults else {"loc": (), "msg": "invalid"}
    param = ".".join(str(step) for step in first["loc"][1:]) or None
    return _render(request, InvalidRequestError(f"{param}: {first['msg']}", param=param))


async def _on_fault(request: Request, error: Exception) -> Response:
    logger.error("unexpected fault", exc_info=error)
    return _render(request, GatewayError("The server had an internal error."))
