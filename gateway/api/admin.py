"""What operators and Kubernetes ask on the admin port: /metrics, /livez, /readyz."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.upstream.pool import Engine
from gateway.watch import Watched


def application(
    metrics: Metrics,
    engines: Callable[[], Mapping[str, Engine]],
    draining: Callable[[], bool],
    watched: Sequence[Watched],
    store_answers: Callable[[], bool | None],
    provider_faults: Callable[[], Mapping[str, str | None]],
) -> FastAPI:
    """The admin application. It has no authentication: its port stays inside.

    `store_answers`: None where there is no store of quotas; `provider_faults`: None for token providers without one.
    """
    app = FastAPI(title="gemma-gateway admin", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    @app.get("/livez")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> JSONResponse:
        """200 while requests are taken and at least one engine can answer them.

        What could not be read anew, so that the last good one is in force, is told beside it; and whether the quota
        store and the token providers answer, where there are some. The gateway works on without them.
        """
        states = {name: "ready" if engine.ready else "not ready" for name, engine in engines().items()}
        status = "draining" if draining() else "ready" if "ready" in states.values() else "no engine is ready"
        code = 200 if status == "ready" else 503
        read = {each.name: each.fault or "ok" for each in watched}
        beside = _beside(store_answers(), provider_faults())
        replicas = {name: _replicas(engine) for name, engine in engines().items()}
        return JSONResponse({"status": status, "engines": states, "replicas": replicas, **read, **beside}, code)

    return app


def _replicas(engine: Engine) -> dict[str, str]:
    return {each.name: each.state for each in engine.replicas.values()}


def _beside(answers: bool | None, faults: Mapping[str, str | None]) -> dict[str, object]:
    """How the services stand that some gateways lean on."""
    found: dict[str, object] = {}
    if answers is not None:
        found["quota_store"] = "ok" if answers else "unavailable"
    if faults:
        found["token_providers"] = {name: fault or "ok" for name, fault in faults.items()}
    return found
