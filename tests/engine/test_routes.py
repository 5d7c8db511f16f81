"""Every route of the pinned vLLM is classified: reachable by clients, or a 404 at the gateway."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from gateway.api import speech
from gateway.api.dialects import INFERENCE_PATHS

pytestmark = pytest.mark.engine

#: Answered by the gateway itself.
OWN = {"/v1/models", "/openapi.json", *speech.PATHS}

#: What no client may reach, and why.
WITHHELD: dict[str, set[str]] = {
    "changes or stops the engine": {
        "/abort_requests",
        "/adapters",
        "/adapters/{adapter_name}",
        "/collective_rpc",
        "/fault_tolerance/apply",
        "/finish_weight_update",
        "/inference/v1/abort_requests",
        "/init_weight_transfer_engine",
        "/pause",
        "/release_kv_cache_memory",
        "/reset_encoder_cache",
        "/reset_mm_cache",
        "/reset_prefix_cache",
        "/resume",
        "/scale_elastic_ep",
        "/shutdown_weight_transfer_engine",
        "/sleep",
        "/start_draft_weight_update",
        "/start_profile",
        "/start_weight_update",
        "/stop_profile",
        "/update_weight_version",
        "/update_weights",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/wake_up",
    },
    "tells about the engine: for operators, on its own address": {
        "/docs",
        "/docs/oauth2-redirect",
        "/fault_tolerance/status",
        "/get_world_size",
        "/health",
        "/is_paused",
        "/is_scaling_elastic_ep",
        "/is_sleeping",
        "/kv_event_sources",
        "/load",
        "/metrics",
        "/ping",
        "/redoc",
        "/server_info",
        "/tokenizer_info",
        "/version",
        "/weight_checker",
        "/weight_info",
    },
    "another door to what has one already, without its checks": {
        "/generative_scoring",
        "/inference/v1/generate",
        "/invocations",
        "/v1/chat/completions/batch",
        "/v1/chat/completions/derender",
        "/v1/chat/completions/render",
        "/v1/completions/derender",
        "/v1/completions/render",
        "/v1/messages/render",
        "/v1/responses/render",
        "/cohere/v2/chat",
        "/v1/systemone",
    },
    "kept by one engine, not found on its replicas": {
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
    },
    "not for models that generate": {
        "/classify",
        "/pooling",
        "/rerank",
        "/score",
        "/v1/rerank",
        "/v1/score",
        "/v2/embed",
        "/v2/rerank",
    },
    "a WebSocket": {"/v1/realtime"},
}


def vllm_routes() -> set[str]:
    """The paths of vLLM's OpenAI application, and those that any router in its package could add to it."""
    from fastapi import APIRouter
    from vllm import entrypoints
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    names = [m.name for m in pkgutil.walk_packages(entrypoints.__path__, "vllm.entrypoints.")]
    modules = [importlib.import_module(name) for name in names if name.endswith("api_router")]
    routers = [value for module in modules for value in vars(module).values() if isinstance(value, APIRouter)]
    app = build_app(make_arg_parser(FlexibleArgumentParser()).parse_args([]), ("generate", "transcription", "realtime"))
    return {route.path for routes in (app, *routers) for route in routes.routes if hasattr(route, "path")}


def test_every_route_of_vllm_is_classified() -> None:
    classified = {*INFERENCE_PATHS, *OWN, *(path for paths in WITHHELD.values() for path in paths)}

    assert vllm_routes() - classified == set()


def test_no_route_is_both_open_and_withheld() -> None:
    withheld = [path for paths in WITHHELD.values() for path in paths]

    assert len(withheld) == len(set(withheld))
    assert set(withheld) & {*INFERENCE_PATHS, *OWN} == set()


def test_every_open_route_is_one_that_vllm_has() -> None:
    assert set(INFERENCE_PATHS) - vllm_routes() == set()
