"""What operators and Kubernetes ask on the admin port: /metrics, /livez, /readyz."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.upstream.pool import Engine


def application(metrics: Metrics, engines: Mapping[str, Engine], draining: Callable[[], bool]) -> FastAPI:
    """The admin application. It has no authentication: its port stays inside."""
    app = FastAPI(title="gemma-gateway admin", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    @app.get("/livez")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> JSONResponse:
        """200 while requests are taken and at least one engine can answer them."""
        states = {name: "ready" if engine.ready else "not ready" for name, engine in engines.items()}
        status = "draining" if draining() else "ready" if "ready" in states.values() else "no engine is ready"
        code = 200 if status == "ready" else 503
        return JSONResponse({"status": status, "engines": states}, code)

    return app
