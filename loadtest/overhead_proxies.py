"""What is measured, by name: how each proxy is started, and what its clients have to say to it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

from loadtest.access import usual
from loadtest.engine import MODEL
from loadtest.processes import free_port

DIRECT = "direct"
GATEWAY = "gateway"
#: By the policy that costs it least, and as it starts when nothing is said.
ROUTER = "vllm-router"
ROUTER_BY_DEFAULT = "cache-aware"
NGINX = "nginx"
LITELLM = "litellm"

#: A command that listens on a port in front of engines, of each its host and port.
Command = Callable[[int, Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Proxy:
    """`command` is None for the engine itself. `headers` are whole lines that each request carries."""

    name: str
    command: Command | None = None
    headers: str = ""


def found(folder: Path, programs: Mapping[str, str | None]) -> list[Proxy]:
    """The engine, the gateway, and each peer that is there. `programs` are paths by name; None: looked for in PATH."""
    proxies = [Proxy(DIRECT), gateway(folder)]
    for name, makers in {ROUTER: (router, router_by_default), NGINX: (nginx,), LITELLM: (litellm,)}.items():
        path = shutil.which(programs.get(name) or name)
        if path is not None:
            proxies += [make(path, folder) for make in makers]
    return proxies


def gateway(folder: Path) -> Proxy:
    """With what is usual on."""
    sections, model, key = usual(folder)

    def command(port: int, engines: Sequence[str]) -> list[str]:
        config = _written(folder, port, engines, sections, model)
        return [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]

    return Proxy(GATEWAY, command, f"authorization: Bearer {key}\r\n")


def write_gateway(folder: Path, port: int, engine: int, **engine_settings: object) -> tuple[Path, str]:
    """The configuration of a gateway with what is usual on, and its key."""
    sections, model, key = usual(folder)
    return _written(folder, port, [f"127.0.0.1:{engine}"], sections, model, engine_settings), key


def _written(
    folder: Path,
    port: int,
    engines: Sequence[str],
    sections: Mapping[str, object],
    model: Mapping[str, object],
    engine_settings: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """A key, its limits, an alias that is renamed, metrics, and, as by default, the access log."""
    document = {
        "server": {"port": port, "admin_port": free_port(), "drain_seconds": 0.1},
        "engines": {"default": {"urls": [f"http://{engine}" for engine in engines], **engine_settings}},
        "models": {"gemma": {"modalities": ["text", "image"], **model}},
        "limits": {"max_in_flight": 10_000},
        **sections,
    }
    config = folder / f"gateway-{port}.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def router(path: str, folder: Path) -> Proxy:  # noqa: ARG001  (one signature for all peers)
    """vLLM's own, by the policy that costs it least."""
    return Proxy(ROUTER, _router(path, "--policy", "round_robin"))


def router_by_default(path: str, folder: Path) -> Proxy:  # noqa: ARG001
    """The same by its own default, the policy that keeps conversations where their prefix is cached."""
    return Proxy(ROUTER_BY_DEFAULT, _router(path))


def _router(path: str, *options: str) -> Command:
    def command(port: int, engines: Sequence[str]) -> list[str]:
        workers = ["--worker-urls", *(f"http://{engine}" for engine in engines)]
        listening = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        return [path, *listening, *workers, *options]

    return command


def nginx(path: str, folder: Path) -> Proxy:
    """One process that passes bytes on as they come."""

    def command(port: int, engines: Sequence[str]) -> list[str]:
        config = folder / f"nginx-{port}.conf"
        servers = " ".join(f"server {engine};" for engine in engines)
        config.write_text(_NGINX.format(port=port, servers=servers, folder=folder))
        return [path, "-c", str(config), "-e", "stderr", "-p", str(folder)]

    return Proxy(NGINX, command)


_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx-{port}.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_buffer_size 8m;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_requests 100000000;
  upstream engine {{ {servers} keepalive 4096; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 600;
    }}
  }}
}}
"""


def litellm(path: str, folder: Path) -> Proxy:
    """One worker, with a master key."""

    def command(port: int, engines: Sequence[str]) -> list[str]:
        model = {"model": f"hosted_vllm/{MODEL}", "api_key": "none"}
        deployments = [{**model, "api_base": f"http://{engine}/v1"} for engine in engines]
        config = folder / f"litellm-{port}.yaml"
        document = {
            "model_list": [{"model_name": "gemma", "litellm_params": each} for each in deployments],
            "general_settings": {"master_key": "sk-load"},
        }
        config.write_text(yaml.safe_dump(document))
        return [path, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]

    return Proxy(LITELLM, command, "authorization: Bearer sk-load\r\n")
