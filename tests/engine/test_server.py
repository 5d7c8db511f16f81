"""The engine process by itself, over its socket: readiness, batching, caching, tensor parallelism, its ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

#: Longest wait for an engine to be up, or gone, in seconds.
UP_SECONDS, GONE_SECONDS = 480.0, 60.0

PROMPTS = ("Hello", "What is this?", "The quick brown fox jumps over the lazy dog. ")


@dataclass(frozen=True)
class EngineProcess:
    """`gemma-gateway engine`, as it runs."""

    process: subprocess.Popen[bytes]
    socket: Path
    log_file: Path

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://engine", timeout=120)

    def health(self) -> tuple[int, str]:
        """Status and body of /health; status 0 where nobody listens."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                answer = connection.makefile("rb").read().decode()
            except OSError:
                return 0, ""
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def descendants(self) -> list[int]:
        """The processes that it has started, and those have started."""
        listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listing.splitlines())}
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {self.process.pid})

    def named(self, name: str) -> int:
        """The one descendant that goes by this name."""
        pids = [pid for pid in self.descendants() if name in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(pids) == 1, pids
        return pids[0]


@contextmanager
def running(model: Path, folder: Path, *flags: str) -> Iterator[EngineProcess]:
    """Starts an engine; kills whatever of it is left in the end."""
    address, log = folder / "engine.sock", folder / "engine.log"
    argv = [sys.executable, "-m", "gateway", "engine", str(model), "--uds", str(address), *flags]
    environment = dict(os.environ)
    if "--tensor-parallel-size" in flags:
        # Several workers need a core each.
        environment.pop("VLLM_CPU_OMP_THREADS_BIND", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
    try:
        yield EngineProcess(process, address, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], bool], seconds: float, engine: EngineProcess) -> float:
    """Waits; how long it took, in seconds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, engine.log()[-4000:]
        time.sleep(0.05)
    return time.monotonic() - start


def until_gone(children: Sequence[int], seconds: float, engine: EngineProcess) -> None:
    """Waits until none of the engine's processes runs; a failure names those that are left."""
    deadline = time.monotonic() + seconds
    while left := {pid: command_line(pid).replace("\0", " ") for pid in alive(children)}:
        assert time.monotonic() < deadline, f"{left} still run\n{engine.log()[-4000:]}"
        time.sleep(0.05)


def start_up(engine: EngineProcess) -> list[tuple[int, str]]:
    """Waits until it is ready; the different answers of /health on the way."""
    seen: list[tuple[int, str]] = []

    def ready() -> bool:
        answer = engine.health()
        if answer not in seen:
            seen.append(answer)
        return answer[0] == 200 or engine.process.poll() is not None

    until(ready, UP_SECONDS, engine)
    assert engine.process.poll() is None, engine.log()[-4000:]
    return seen


@dataclass(frozen=True)
class Started:
    engine: EngineProcess
    client: httpx.Client
    health_on_the_way: Sequence[tuple[int, str]]


def chat(text: str, **options: Any) -> dict[str, Any]:
    return {"model": "gemma", "messages": [{"role": "user", "content": text}], "temperature": 0, **options}


def greedy_tokens(client: httpx.Client) -> list[list[int]]:
    """The first 24 tokens of each answer."""
    answers = [
        client.post("/v1/chat/completions", json=chat(prompt, max_tokens=24, ignore_eos=True, return_token_ids=True))
        for prompt in PROMPTS
    ]
    return [answer.json()["choices"][0]["token_ids"] for answer in answers]


def metric(client: httpx.Client, name: str) -> float:
    """The sum of a series over its labels."""
    text = client.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def effective_arguments(engine: EngineProcess) -> str:
    return next(line for line in engine.log().splitlines() if "effective arguments" in line)


@pytest.fixture(scope="module")
def single(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One engine with one worker and one flag by hand. The last test that uses it ends it."""
    with running(model, tmp_path_factory.mktemp("tp1"), "--max-model-len", "4096", "--drain-seconds", "60") as engine:
        seen = start_up(engine)
        with engine.client() as client:
            yield Started(engine, client, seen)


@pytest.fixture(scope="module")
def tokens_of_one(single: Started) -> list[list[int]]:
    """What one worker answers."""
    return greedy_tokens(single.client)


@pytest.fixture(scope="module")
def double(tokens_of_one: list[list[int]], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One engine with two workers. The last test that uses it ends it."""
    with running(model, tmp_path_factory.mktemp("tp2"), "--tensor-parallel-size", "2") as engine:
        seen = start_up(engine)
        with engine.client() as client:
            yield Started(engine, client, seen)


def test_health_is_503_until_each_modality_was_answered(single: Started) -> None:
    assert (503, '{"status":"warming up"}') in single.health_on_the_way
    log = single.engine.log()
    phases = ["loading the model", "model loaded", "text answered", "image answered", "audio answered", "ready in"]
    assert [phase for phase in phases if phase in log] == phases
    assert sorted(phases, key=log.index) == phases


def test_effective_arguments_are_printed_and_flags_by_hand_win(single: Started) -> None:
    printed = effective_arguments(single.engine)
    assert "--max-model-len 4096  " in printed
    assert "--enable-prefix-caching true (preset)" in printed
    assert "--dtype float32 (preset)" in printed
    (model,) = single.client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("gemma", 4096)


def test_nothing_is_fetched(single: Started) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/cat.png"}}
    answer = single.client.post(
        "/v1/chat/completions", json=chat("", max_tokens=1) | {"messages": [{"role": "user", "content": [part]}]}
    )
    assert answer.status_code == 400
    assert "media.invalid" in answer.text


def test_thirty_two_streams_of_different_lengths_all_finish(single: Started) -> None:
    def stream(length: int) -> tuple[int, str | None]:
        options = {"max_tokens": length, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        body = single.client.post("/v1/chat/completions", json=chat(f"Count to {length}", **options)).text
        assert body.endswith("data: [DONE]\n\n")
        events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        finish = next(event["choices"][0]["finish_reason"] for event in reversed(events) if event["choices"])
        return events[-1]["usage"]["completion_tokens"], finish

    lengths = [3 + 5 * i for i in range(32)]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(stream, lengths)) == [(length, "length") for length in lengths]


def test_a_repeated_long_prefix_comes_from_the_cache(single: Started) -> None:
    prefix = "All happy families are alike. " * 40
    before = metric(single.client, "vllm:prefix_cache_hits_total")
    first, second = (
        single.client.post("/v1/chat/completions", json=chat(prefix + end, max_tokens=1)).json()["usage"]
        for end in ("One", "Two")
    )
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert cached > first["prompt_tokens_details"]["cached_tokens"]
    assert cached >= 256
    assert metric(single.client, "vllm:prefix_cache_hits_total") - before >= cached


def test_sigterm_finishes_running_streams_refuses_new_requests_and_exits_with_0(
    single: Started, tokens_of_one: list[list[int]]
) -> None:
    engine, children = single.engine, single.engine.descendants()
    usage = {"stream_options": {"include_usage": True}}
    document = chat("Hello", max_tokens=600, ignore_eos=True, stream=True, **usage)
    with single.client.stream("POST", "/v1/chat/completions", json=document) as reply:
        lines = reply.iter_lines()
        next(lines)
        engine.process.terminate()
        until(lambda: engine.health() == (503, '{"status":"draining"}'), 2, engine)
        with engine.client() as other:
            refused = other.post("/v1/chat/completions", json=chat("Hello"))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["error"]["code"] == "engine_unavailable"
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 600
    assert engine.process.wait(GONE_SECONDS) == 0
    until_gone(children, 5, engine)
    assert not engine.socket.exists()


def test_two_workers_answer_as_one_does(double: Started, tokens_of_one: list[list[int]]) -> None:
    assert "--tensor-parallel-size 2" in effective_arguments(double.engine)
    assert greedy_tokens(double.client) == tokens_of_one


def test_an_engine_core_that_dies_ends_the_process_with_the_cause_in_the_log(double: Started) -> None:
    engine, children = double.engine, double.engine.descendants()
    os.kill(engine.named("EngineCore"), signal.SIGKILL)
    start = time.monotonic()
    assert engine.process.wait(GONE_SECONDS) == 1
    assert time.monotonic() - start < 15
    assert re.search(r"the engine core died: EngineCore\S* \(pid \d+\) was ended by SIGKILL", engine.log())
    # Nobody tells the workers: they see it by themselves, and take 3 s on idle cores to end.
    until_gone(children, GONE_SECONDS, engine)


def test_sigterm_while_the_model_loads_ends_it_with_0_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path) as engine:
        until(lambda: any_named(engine, "EngineCore"), UP_SECONDS, engine)
        children = engine.descendants()
        engine.process.terminate()
        assert engine.process.wait(GONE_SECONDS) == 0
        until_gone(children, 10, engine)
        assert "SIGTERM: stopped while the model was loading" in engine.log()


def test_a_warm_up_that_fails_ends_it_with_the_cause(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "broken.jinja"
    template.write_text("{{ raise_exception('a broken template') }}")
    with running(model, tmp_path, "--chat-template", str(template)) as engine:
        assert engine.process.wait(UP_SECONDS) == 1
        (line,) = (line for line in engine.log().splitlines() if "warm-up: the engine answered" in line)
        assert "text request with status 400" in line
        assert "a broken template" in line
        assert not alive(engine.descendants())


def any_named(engine: EngineProcess, name: str) -> bool:
    return any(name in command_line(pid) for pid in engine.descendants())


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def alive(pids: Sequence[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and command_line(pid)]
