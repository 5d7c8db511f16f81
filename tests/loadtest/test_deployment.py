"""A deployment is measured by scenarios: what they may say, what is sent, and what the report tells."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from dataclasses import astuple
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import soundfile
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from gateway.access import key_edits
from loadtest.deployment import records, report, requests, scenario, table, tool
from loadtest.deployment.__main__ import main
from loadtest.deployment.records import Outcome
from loadtest.deployment.scenario import Slo
from tests.fake_engine import Behaviour, Received, begin, data, send
from tests.live.test_process import Process, started

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = sorted((ROOT / "loadtest" / "scenarios").glob("*.yaml"))
SMOKE = ROOT / "loadtest" / "scenarios" / "smoke.yaml"
KIND = {"name": "text", "words": 5, "output_tokens": 4}
MODELS = {"gemma": {"modalities": ["text", "image", "audio"]}}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenarios_that_come_with_the_project_are_valid(path: Path) -> None:
    assert scenario.read(path).description


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rate": 0}, "rate: Input should be greater than 0"),
        ({"requests": "many"}, "requests: Input should be a valid integer"),
        ({"ratee": 1}, "ratee: Extra inputs are not permitted"),
        ({"mix": []}, "mix: Tuple should have at least 1 item"),
        ({"mix": [KIND, KIND]}, "the file: mix has two kinds called text"),
        ({"mix": [{**KIND, "words": [9, 2]}]}, "mix[0].words: a span is a number above 0, or [least, most]"),
        ({"mix": [{**KIND, "pictures": {"width": 9000, "height": 8}}]}, "mix[0].pictures: a side has at most 8192"),
        ({"mix": [{**KIND, "clip": {"seconds": 5, "hertz": 7}}]}, "mix[0].clip.hertz: Input should be 8000, 16000"),
    ],
)
def test_fault_in_a_scenario_is_told_with_its_place(fields: dict[str, object], told: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump({"rate": 1, "requests": 1, "mix": [KIND], **fields}))

    with pytest.raises(click.ClickException) as caught:
        scenario.read(file)

    assert told in caught.value.message


def test_mix_is_exact_and_the_warm_up_takes_each_kind_in_turn() -> None:
    names = [kind.name for kind in requests.kinds(scenario.read(SMOKE))]

    assert names[:3] == ["text", "picture", "sound"]
    assert Counter(names[3:]) == {"text": 20, "picture": 10, "sound": 10}


def test_another_run_has_the_same_sizes_and_other_content() -> None:
    smoke = scenario.read(SMOKE)
    once, again, other = [[made.body for made in requests.generate(smoke, "gemma", run)] for run in (0, 0, 1)]

    assert once == again
    assert [body["max_tokens"] for body in once] == [body["max_tokens"] for body in other]
    assert not any(a["messages"] == b["messages"] for a, b in zip(once, other, strict=True))


def test_media_are_what_the_scenario_says() -> None:
    bodies = {made.kind: made.body for made in requests.generate(scenario.read(SMOKE), "gemma", 0)}
    url = bodies["picture"]["messages"][0]["content"][1]["image_url"]["url"]
    sound = bodies["sound"]["messages"][0]["content"][1]["input_audio"]

    picture = Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
    clip = soundfile.info(BytesIO(base64.b64decode(sound["data"])))

    assert (picture.format, picture.height, 64 <= picture.width <= 128) == ("JPEG", 64, True)
    assert (clip.format, clip.samplerate, clip.duration) == ("WAV", 16_000, 1.0)


async def test_gateway_takes_every_kind_of_request(tmp_path: Path) -> None:
    made = list(requests.generate(scenario.read(SMOKE), "gemma", 0))[:9]
    async with started(tmp_path, models=MODELS) as process, httpx.AsyncClient(timeout=20) as client:
        answers = [await client.post(f"{process.url}/v1/chat/completions", json=one.body) for one in made]
        kinds = [sent["messages"][0]["content"][-1]["type"] for sent in map(Received.json, process.engine.requests)]

    assert [answer.status_code for answer in answers] == [200] * 9
    assert all(answer.text.rstrip().endswith("[DONE]") for answer in answers)
    last = {"text": "text", "picture": "image_url", "sound": "input_audio"}
    assert kinds == [last[one.kind] for one in made]


def record(**more: Any) -> dict[str, Any]:
    """As the tool writes one, shortened."""
    told = {"conversation_id": "session_000001", "benchmark_phase": "profiling", "credit_issued_ns": 1_000_000_000}
    times = {"request_start_ns": 1_002_000_000, "request_end_ns": 1_202_000_000}
    return {"metadata": {**told, **times}, "metrics": {}, **more}


def milliseconds(value: float | list[float]) -> dict[str, Any]:
    return {"value": value, "unit": "ms"}


def test_answered_request_is_read_from_its_record() -> None:
    metrics = {
        "time_to_first_token": milliseconds(50.0),
        "request_latency": milliseconds(200.0),
        "inter_chunk_latency": milliseconds([70.0, 80.0]),
        "usage_completion_tokens": {"value": 4, "unit": "tokens"},
    }

    read = records.outcome(record(metrics=metrics), ["text", "sound"])

    assert read == Outcome("sound", 1.002, 1.202, 2.0, None, 50.0, 200.0, (70.0, 80.0), 4)
    assert read.tpot_ms == 50.0


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"error": {"code": 401, "message": '{"error": {"code": "invalid_api_key"}}'}}, "401 invalid_api_key"),
        ({"error": {"code": 502, "type": "Bad Gateway", "message": "<html>"}}, "502 Bad Gateway"),
        ({"error": {"code": None, "type": "ClientConnectorError", "message": "refused"}}, "ClientConnectorError"),
        ({"error": {"type": "InvalidInferenceResultError", "message": "No responses"}}, "answer without content"),
        ({"metrics": {"time_to_first_token": milliseconds(5.0)}}, records.CUT_SHORT),
    ],
)
def test_kind_of_an_error_is_read_from_its_record(more: dict[str, Any], kind: str) -> None:
    assert records.outcome(record(**more), ["text", "text"]).error == kind


def outcomes() -> list[Outcome]:
    """A hundred answered within 1 to 100 ms to the first token, and two errors."""
    answered = [Outcome("text", n / 50, n / 50 + 1, 0.1, None, n, 10 * n, (n / 2,), 11) for n in range(1, 101)]
    return [*answered, *(Outcome("text", 0, 0.1, 0.1, error) for error in ("401 invalid_api_key", "TimeoutError"))]


def test_figures_count_errors_and_goodput_of_all_requests() -> None:
    found = report.figures(outcomes(), 4.0, Slo(ttft_ms=80, e2e_ms=500))

    assert (found.requests, found.errors) == (102, {"401 invalid_api_key": 1, "TimeoutError": 1})
    assert astuple(found.ttft_ms) == pytest.approx((50.5, 90.1, 99.01))
    assert astuple(found.goodput) == pytest.approx((50, 12.5, 50 / 1.02))
    assert found.output_tokens_per_second == 275.0


def test_table_tells_the_difference_and_a_dash_for_what_was_not_measured() -> None:
    fast, refused = (report.figures(part, 1.0, Slo()) for part in (outcomes()[:100], outcomes()[100:]))
    slow = report.figures([Outcome("text", 0, 1, 0.1, None, 60.5, 700, (), 2)], 1.0, Slo())

    told = {line.split("  ")[0]: line.split() for line in table.whole({"gateway": slow, "direct": fast}).splitlines()}
    alone = {line.split("  ")[0]: line.split() for line in table.whole({"gateway": refused}).splitlines()}

    assert told["TTFT p50, ms"][3:] == ["60.5", "50.5", "+10.0"]
    assert alone["errors"][1:] == ["2"]
    assert alone["TTFT p50, ms"][3:] == ["–"]  # noqa: RUF001  (as the table writes it)


def command(*words: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env=env)


def test_missing_tool_is_an_error_with_the_command_that_installs_it(tmp_path: Path) -> None:
    result = command(SMOKE, "--url", "http://127.0.0.1:1", "--aiperf", tmp_path / "none")

    assert result.exit_code == 1
    assert ".venv-aiperf/bin/pip install" in result.output


def test_tool_that_fails_is_an_error_with_the_end_of_its_log_and_without_the_key(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\necho "out of memory, key $GEMMA_LOAD_KEY"\nexit 3\n')
    broken.chmod(0o700)

    result = command(SMOKE, "--url", "http://h:1", "--aiperf", broken, env={tool.KEY_VARIABLE: "sk-gemma-secret"})

    assert result.exit_code == 1
    assert "measured 0 of 40:\nout of memory, key ***" in result.output


@pytest.mark.parametrize("url", ["http://user:secret@gateway:8000", "gateway:8000", "http://gateway?key=secret"])
def test_address_that_may_hold_a_secret_or_is_none_is_refused(url: str) -> None:
    result = command(SMOKE, "--url", url)

    assert (result.exit_code, "without a user or a query" in result.output) == (2, True)


def test_key_is_in_neither_the_tools_configuration_nor_a_target_that_is_printed(tmp_path: Path) -> None:
    target = tool.Target("gateway", "http://g", "gemma", "sk-gemma-secret")

    written = yaml.safe_dump(tool._configuration(target, scenario.read(SMOKE), tmp_path))

    assert "${GEMMA_LOAD_KEY}" in written
    assert "secret" not in written + repr(target)


def paced() -> Behaviour:
    """Streams as many tokens as are asked for, as vLLM does, 5 ms apart."""

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        asked = request.json()
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
        usage = {"prompt_tokens": 7, "completion_tokens": asked["max_tokens"], "total_tokens": 7 + asked["max_tokens"]}
        await begin(writer)
        for _ in range(asked["max_tokens"]):
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
            await send(writer, data({**head, "choices": [choice]}))
            await asyncio.sleep(0.005)
        await send(writer, data({**head, "choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


def failing(every: int) -> Behaviour:
    """Each so-many-th stream ends in an error event after its first token."""
    whole, count = paced(), 0

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count % every:
            return await whole(request, writer)
        await begin(writer)
        choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        await send(writer, data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}))
        await send(writer, data({"error": {"message": "gone", "type": "server_error", "param": None, "code": None}}))
        return await send(writer, b"")

    return behave


async def measure(process: Process, folder: Path, key: str, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Runs the command with smoke.yaml; its status, its output, and the figures."""
    (folder / "key").write_text(key)
    words = [str(SMOKE), "--url", process.url, "--key-file", str(folder / "key"), "--json", str(folder / "out.json")]
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "loadtest.deployment", *words, *options],
        cwd=ROOT,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 90)
    assert (folder / "out.json").exists(), output.decode()
    return child.returncode or 0, output.decode(), json.loads((folder / "out.json").read_text())


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key in keys.yaml, for tests that need aiperf, which are skipped without it."""
    try:
        tool.find(None)
    except click.ClickException as error:
        pytest.skip(error.message)
    return key_edits.create(tmp_path / "keys.yaml", "load")


@pytest.mark.extended
async def test_gateway_is_measured_beside_its_engine(tmp_path: Path, key: str) -> None:
    async with started(tmp_path, models=MODELS, auth={"keys_file": str(tmp_path / "keys.yaml")}) as process:
        process.engine.behaviour = paced()
        plot = tmp_path / "out.png"
        code, output, told = await measure(process, tmp_path, key, "--direct", process.engine.url, "--plot", str(plot))
        received = len(process.engine.requests)

    assert (code, received, told["gateway"]["errors"], told["direct"]["errors"]) == (0, 2 * 43, {}, {})
    for side in ("gateway", "direct"):
        assert (told[side]["requests"], told[side]["errors"], told[side]["goodput"]["requests"]) == (40, {}, 40)
        assert {kind: part["requests"] for kind, part in told[side]["by_kind"].items()} == {
            "text": 20,
            "picture": 10,
            "sound": 10,
        }
        for times in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
            assert 0 < told[side][times]["p50"] <= told[side][times]["p90"] <= told[side][times]["p99"]
    expected = told["gateway"]["e2e_ms"]["p50"] - told["direct"]["e2e_ms"]["p50"]
    assert told["gateway_minus_direct"]["e2e_ms"]["p50"] == expected
    assert "difference" in output
    assert key not in output + (tmp_path / "out.json").read_text()
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.extended
async def test_refused_requests_are_counted_by_kind(tmp_path: Path, key: str) -> None:
    async with started(tmp_path, models=MODELS, auth={"keys_file": str(tmp_path / "keys.yaml")}) as process:
        code, output, told = await measure(process, tmp_path, f"{key}x")

    assert (code, told["gateway"]["requests"], sum(told["gateway"]["errors"].values())) == (1, 40, 40)
    assert told["gateway"]["errors"]["401 invalid_api_key"] > 0
    assert (told["gateway"]["goodput"]["requests"], told["gateway"]["ttft_ms"]["p50"]) == (0, None)
    assert "no request succeeded" in output
    assert key not in output


@pytest.mark.extended
async def test_streams_that_end_in_an_error_event_are_errors(tmp_path: Path, key: str) -> None:
    async with started(tmp_path, models=MODELS, auth={"keys_file": str(tmp_path / "keys.yaml")}) as process:
        process.engine.behaviour = failing(4)
        code, _, told = await measure(process, tmp_path, key)

    assert (code, told["gateway"]["errors"]) == (0, {records.CUT_SHORT: 10})
