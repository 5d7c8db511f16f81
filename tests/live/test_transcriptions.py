"""Recordings become text through OpenAI's own SDK: every format, streamed, in order, and whatever the engine does."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

from tests.fake_engine import Behaviour, Received, abort, begin, data, event, reply, send
from tests.live.conftest import Running, Start

RATE = 16_000
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 5,
    "total_tokens": 25,
    "prompt_tokens_details": {"multimodal_tokens": {"audio": 12}},
}


def recording(*loudness: float, seconds: float = 1.0) -> bytes:
    """A WAV at 16 kHz: for each number so many seconds of noise, that loud."""
    noise = np.random.default_rng(1).uniform(-1, 1, int(seconds * RATE))
    samples = np.concatenate([noise * each for each in loudness])
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32000).astype("<i2").tobytes())
    return buffer.getvalue()


def long_recording(pieces: int) -> bytes:
    """Noise with pauses at every 25 s, where it is cut."""
    return recording(*([0.5] * 49 + [0.001]) * pieces, seconds=0.5)


def parts(request: Received) -> list[dict[str, Any]]:
    (message,) = request.json()["messages"]
    return list(message["content"])


def sound_of(request: Received) -> str:
    """The data URL of the one clip in a request."""
    (url,) = [part["audio_url"]["url"] for part in parts(request) if part["type"] == "audio_url"]
    return str(url)


def instruction(request: Received) -> str:
    return str(next(part["text"] for part in parts(request) if part["type"] == "text"))


def number_of(request: Received) -> int:
    """Which piece of its recording a request is about: the engine gets a request id of its own for each."""
    return int(request.headers["x-request-id"].rpartition("-")[2])


def saying(words: Callable[[int], list[str]], delay: Callable[[int], float] = lambda _: 0) -> Behaviour:
    """An engine that says `words(piece)`, after `delay(piece)` seconds, as vLLM streams them."""

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        number = number_of(request)
        await asyncio.sleep(delay(number))
        await begin(writer)
        for word in words(number):
            await send(writer, event(word))
        await send(writer, data({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
        await send(writer, b"")

    return behave


def numbered(number: int) -> list[str]:
    return [f"piece {number}", " is", " said.\n"]


@pytest.fixture
async def gateway(start: Start) -> Running:
    running = await start()
    running.engine.behaviour = saying(numbered)
    return running


@pytest.fixture
async def sdk(gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client


CLIP = ("clip.wav", recording(0.5))


async def test_short_recording_is_asked_once_over_chat_completions(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.audio.transcriptions.create(file=CLIP, model="gemma", language="fr", temperature=0.3)

    assert answer.text == "piece 0 is said."
    assert answer.usage is not None
    assert answer.usage.to_dict() == {
        "type": "tokens",
        "input_tokens": 20,
        "input_token_details": {"audio_tokens": 12, "text_tokens": 8},
        "output_tokens": 5,
        "total_tokens": 25,
    }
    (request,) = gateway.engine.requests
    asked = request.json()
    assert request.path == "/v1/chat/completions"
    assert (asked["model"], asked["temperature"], asked["stream"]) == ("served", 0.3, True)
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert instruction(request).startswith("Transcribe the following speech segment in French into French text.")
    assert sound_of(request).startswith("data:audio/wav;base64,UklGR")
    assert gateway.metric("gemma_gateway_tokens_total", model="gemma", kind="audio") == 12


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK thinks of its own models
async def test_translation_says_into_which_language(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    english = await sdk.audio.translations.create(file=CLIP, model="gemma")
    german = await sdk.audio.translations.create(
        file=CLIP, model="gemma", response_format="verbose_json", extra_body={"to_language": "de", "language": "fr"}
    )

    assert english.text == "piece 0 is said."
    assert german.language == "german"
    told = [instruction(request).splitlines()[0] for request in gateway.engine.requests]
    assert told == [
        "Translate the following speech segment into English.",
        "Translate the following speech segment in French into German.",
    ]


async def test_gemma_3n_gets_vllms_own_prompt_before_the_sound(start: Start) -> None:
    gateway = await start(models={"gemma": {"family": "gemma3n"}})
    gateway.engine.behaviour = saying(numbered)

    response = await post(gateway)

    (message,) = gateway.engine.requests[0].json()["messages"]
    assert response.json()["text"] == "piece 0 is said."
    assert [part["type"] for part in message["content"]] == ["text", "audio_url"]
    assert message["content"][0]["text"] == "Transcribe this audio:"


async def test_every_response_format_is_what_the_sdk_expects(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    create = sdk.audio.transcriptions.create
    text = await create(file=CLIP, model="gemma", response_format="text")
    srt = await create(file=CLIP, model="gemma", response_format="srt")
    vtt = await create(file=CLIP, model="gemma", response_format="vtt")
    verbose = await create(
        file=CLIP, model="gemma", response_format="verbose_json", timestamp_granularities=["segment"], language="en"
    )

    assert text == "piece 0 is said.\n"
    assert srt == "1\n00:00:00,000 --> 00:00:01,000\npiece 0 is said.\n\n"
    assert vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\npiece 0 is said.\n\n"
    assert (verbose.language, verbose.duration, verbose.text) == ("english", 1.0, "piece 0 is said.")
    assert verbose.segments is not None
    assert [(s.start, s.end, s.text) for s in verbose.segments] == [(0.0, 1.0, "piece 0 is said.")]
    assert verbose.words is None


async def test_long_recording_is_asked_in_pieces_and_told_in_order(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    gateway.engine.behaviour = saying(numbered, delay=lambda number: 0.3 - number / 10)

    answer = await sdk.audio.transcriptions.create(
        file=("long.wav", long_recording(3)), model="gemma", response_format="verbose_json"
    )

    assert answer.text == "piece 0 is said. piece 1 is said. piece 2 is said."
    assert answer.segments is not None
    ends = [segment.end for segment in answer.segments]
    assert [segment.start for segment in answer.segments] == [0.0, *ends[:-1]]
    assert ends == pytest.approx([25, 50, 75], abs=0.6)
    assert answer.duration == 75.0
    assert gateway.metric("gemma_gateway_tokens_total", model="gemma", kind="audio") == 36


async def test_pieces_are_asked_at_once_but_not_more_than_allowed(start: Start) -> None:
    gateway = await start(limits={"max_pieces_at_once": 2})
    most = 0

    async def watch(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        await asyncio.sleep(0.1)
        most = max(most, gateway.engine.running)
        await saying(numbered)(request, writer)

    gateway.engine.behaviour = watch

    response = await post(gateway, long_recording(4))

    assert response.status_code == 200
    assert (most, len(gateway.engine.requests)) == (2, 4)
    assert len({request.headers["x-request-id"] for request in gateway.engine.requests}) == 4
    await gateway.idle()


async def test_stream_tells_deltas_in_order_and_ends_with_all_of_it(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    gateway.engine.behaviour = saying(numbered, delay=lambda number: 0.2 - number / 10)

    stream = await sdk.audio.transcriptions.create(file=("long.wav", long_recording(2)), model="gemma", stream=True)
    events = [each async for each in stream]

    *deltas, done = events
    told = [each.delta for each in deltas if isinstance(each, TranscriptionTextDeltaEvent)]
    assert told == ["piece 0", " is", " said.", " piece 1", " is", " said."]
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == "".join(told)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (40, 10)


async def test_first_words_are_told_while_the_engine_is_still_speaking(gateway: Running) -> None:
    go_on = asyncio.Event()

    async def slow(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("early"))
        await go_on.wait()
        await send(writer, event(" late") + b"data: [DONE]\n\n")
        await send(writer, b"")

    gateway.engine.behaviour = slow

    async with streamed(gateway) as response:
        lines = response.aiter_lines()
        first = [await anext(lines), await anext(lines)]
        go_on.set()
        rest = [line async for line in lines if line.startswith("data:")]

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert first[0] == "event: transcript.text.delta"
    assert json.loads(first[1].removeprefix("data: ")) == {"type": "transcript.text.delta", "delta": "early"}
    assert json.loads(rest[-1].removeprefix("data: "))["text"] == "early late"


async def test_logprobs_that_were_asked_for_come_through(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    said = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.json()["logprobs"] is True
        await begin(writer)
        choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [said]}}
        await send(writer, data({"choices": [choice]}) + b"data: [DONE]\n\n")
        await send(writer, b"")

    gateway.engine.behaviour = behave

    answer = await sdk.audio.transcriptions.create(file=CLIP, model="gemma", include=["logprobs"])

    assert answer.logprobs is not None
    assert [(each.token, each.logprob) for each in answer.logprobs] == [("Hi", -0.25)]


async def test_silence_is_an_empty_text_and_asks_nobody(gateway: Running, sdk: openai.AsyncOpenAI) -> None:
    silence = ("silence.wav", recording(0.0, 0.0))

    plain = await sdk.audio.transcriptions.create(file=silence, model="gemma")
    verbose = await sdk.audio.transcriptions.create(file=silence, model="gemma", response_format="verbose_json")

    assert plain.text == ""
    assert (verbose.text, verbose.duration, verbose.segments) == ("", 2.0, [])
    assert gateway.engine.requests == []


async def test_silent_piece_of_a_long_recording_is_skipped(gateway: Running) -> None:
    loud, silent = [0.5] * 25, [0.0] * 60

    response = await post(gateway, recording(*loud, *silent, *loud), response_format="verbose_json")

    told = response.json()
    assert len(gateway.engine.requests) < 4
    assert (told["segments"][0]["start"], told["segments"][-1]["end"]) == (0.0, 110.0)
    assert told["duration"] == 110.0


async def post(gateway: Running, sound: bytes = CLIP[1], /, **fields: str) -> httpx.Response:
    form = {"model": "gemma", **fields}
    return await gateway.client.post("/v1/audio/transcriptions", data=form, files={"file": ("clip.wav", sound)})


def streamed(gateway: Running, sound: bytes = CLIP[1]) -> Any:
    form = {"model": "gemma", "stream": "true"}
    files = {"file": ("clip.wav", sound)}
    return gateway.client.stream("POST", "/v1/audio/transcriptions", data=form, files=files)


REFUSED: dict[str, tuple[Callable[[Running], Awaitable[httpx.Response]], int, str | None, str | None]] = {
    "JSON": (lambda g: g.client.post("/v1/audio/transcriptions", json={"model": "gemma"}), 400, None, None),
    "no file": (
        lambda g: g.client.post("/v1/audio/transcriptions", files={"model": (None, "gemma")}),
        400,
        "file",
        None,
    ),
    "no sound": (lambda g: post(g, b"not a sound"), 400, "file", "invalid_media"),
    "empty": (lambda g: post(g, b""), 400, "file", "invalid_media"),
    "too long": (lambda g: post(g, recording(*[0.5] * 12)), 413, "file", "media_too_large"),
    "too large": (lambda g: post(g, bytes(500_000)), 413, "file", "media_too_large"),
    "unknown model": (lambda g: post(g, model="other"), 404, "model", "model_not_found"),
    "deaf model": (lambda g: post(g, model="deaf"), 400, "model", None),
    "times of words": (
        lambda g: post(g, **{"timestamp_granularities[]": "word"}),
        400,
        "timestamp_granularities",
        None,
    ),
    "speakers": (lambda g: post(g, response_format="diarized_json"), 400, "response_format", None),
    "GET": (lambda g: g.client.get("/v1/audio/translations"), 405, None, "method_not_allowed"),
}


async def test_request_that_cannot_be_taken_is_refused_before_the_engine_hears_of_it(start: Start) -> None:
    gateway = await start(
        models={"deaf": {"modalities": ["text", "image"]}},
        media={"max_bytes": 400_000, "max_audio_seconds": 10},
    )

    for name, (ask, *expected) in REFUSED.items():
        response = await ask(gateway)
        error = response.json()["error"]
        assert (name, [response.status_code, error["param"], error["code"]]) == (name, expected)
        assert error["message"].endswith(".")

    assert gateway.engine.requests == []
    await gateway.idle()


async def broken(_: Received, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await send(writer, event("piece"))
    await asyncio.sleep(0.05)
    abort(writer)


async def failing(_: Received, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await send(writer, event("piece"))
    await asyncio.sleep(0.05)
    await send(writer, data({"error": {"message": "secret", "type": "InternalServerError", "code": 500}}))
    await send(writer, b"")


async def unfinished(_: Received, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await send(writer, event("piece"))
    await send(writer, b"")


async def hanging(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def second_piece(behaviour: Behaviour) -> Behaviour:
    """An engine that answers well but for the second piece of a recording."""

    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        await (behaviour if number_of(request) == 1 else saying(numbered))(request, writer)

    return behave


def refusal(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": "seed", "code": 400}}).encode()


FAULTS: dict[str, tuple[Behaviour, int, str | None]] = {
    "is full": (reply(b"{}", 503), 503, "overloaded"),
    "fails": (reply(b'{"error":{"message":"secret"}}', 500), 502, "engine_failed"),
    "refuses": (reply(refusal("seed is wrong"), 400), 400, None),
    "lacks the model": (reply(refusal("no such model"), 404), 404, "not_found"),
    "speaks nonsense": (reply(b"data: nonsense\n\n", content_type="text/event-stream"), 502, "engine_failed"),
    "answers in one piece": (reply(b'{"choices":[]}'), 502, "engine_failed"),
    "ends without its end": (unfinished, 502, "engine_failed"),
    "breaks off": (broken, 502, "engine_failed"),
    "fails in mid-stream": (failing, 502, "engine_failed"),
    "never answers": (hanging, 504, "engine_timeout"),
}


async def test_fault_of_the_engine_with_one_piece_fails_the_request_with_its_true_status(start: Start) -> None:
    gateway = await start(engines={"default": {"first_byte_seconds": 1}})
    recorded = long_recording(2)

    for name, (behaviour, *expected) in FAULTS.items():
        gateway.engine.behaviour = second_piece(behaviour)
        response = await post(gateway, recorded)
        assert (name, [response.status_code, response.json()["error"]["code"]]) == (name, expected)
        assert "secret" not in response.text
        await gateway.idle()


async def test_one_failure_stops_the_work_on_all_other_pieces(gateway: Running) -> None:
    async def third_fails(request: Received, writer: asyncio.StreamWriter) -> None:
        await (reply(b"{}", 500) if number_of(request) == 2 else hanging)(request, writer)

    gateway.engine.behaviour = third_fails

    response = await post(gateway, long_recording(4))

    assert response.status_code == 502
    await gateway.idle()


@pytest.mark.parametrize("behaviour", [broken, failing])
async def test_fault_after_the_first_words_is_an_error_event_and_no_done(
    gateway: Running, sdk: openai.AsyncOpenAI, behaviour: Behaviour
) -> None:
    gateway.engine.behaviour = behaviour
    stream = await sdk.audio.transcriptions.create(file=CLIP, model="gemma", stream=True)
    first = await anext(stream)
    with pytest.raises(openai.APIError) as caught:
        await anext(stream)

    assert first.type == "transcript.text.delta"
    assert caught.value.code == "engine_failed"
    assert gateway.metric("gemma_gateway_stream_errors_total", model="gemma") == 1
    await gateway.idle()


async def test_fault_before_the_first_words_of_a_stream_keeps_its_status(
    gateway: Running, sdk: openai.AsyncOpenAI
) -> None:
    gateway.engine.behaviour = reply(b"{}", 503)

    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.audio.transcriptions.create(file=CLIP, model="gemma", stream=True)

    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_client_that_leaves_stops_the_engine_on_every_piece(gateway: Running, stream: str) -> None:
    gateway.engine.behaviour = hanging
    request = asyncio.create_task(post(gateway, long_recording(3), stream=stream))
    async with asyncio.timeout(5):
        while gateway.engine.running < 3:
            await asyncio.sleep(0.01)

    request.cancel()

    await gateway.idle()
    labels = {"path": "/v1/audio/transcriptions", "model": "gemma", "status": "499"}
    assert gateway.metric("gemma_gateway_requests_total", **labels) == 1


async def test_recording_takes_one_slot_whatever_its_pieces(start: Start) -> None:
    gateway = await start(limits={"max_in_flight": 1, "max_queued": 0})
    gateway.engine.behaviour = saying(numbered, delay=lambda _: 0.3)
    first = asyncio.create_task(post(gateway, long_recording(2)))
    async with asyncio.timeout(5):
        while gateway.engine.running < 2:
            await asyncio.sleep(0.01)

    second = await post(gateway)

    assert (second.status_code, (await first).status_code) == (503, 200)
    await gateway.idle()


async def test_recordings_in_work_are_bounded_by_what_they_take(start: Start) -> None:
    gateway = await start(
        media={"max_bytes": 3_000_000, "max_video_bytes": 3_000_000, "max_bytes_in_flight": 4_000_000}
    )
    gateway.engine.behaviour = saying(numbered)

    short = await post(gateway)
    long = await post(gateway, long_recording(2))

    error = long.json()["error"]
    assert (short.status_code, long.status_code, error["code"], error["param"]) == (
        200,
        413,
        "media_too_large",
        "file",
    )
    assert "max_bytes_in_flight" in error["message"]
    assert gateway.metric("gemma_gateway_media_bytes_in_flight") == 0


async def test_drain_time_over_means_an_error_event_and_not_a_silent_cut(gateway: Running) -> None:
    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("piece"))
        await asyncio.sleep(30)

    gateway.engine.behaviour = endless
    async with streamed(gateway) as response:
        chunks = response.aiter_bytes()
        await anext(chunks)
        for task in [t for t in asyncio.all_tasks() if "Edge.run" in repr(t.get_coro())]:
            task.cancel()
        rest = b"".join([chunk async for chunk in chunks])

    assert json.loads(rest.removeprefix(b"data: "))["error"]["code"] == "engine_unavailable"
    await gateway.idle()


async def test_keys_guard_the_route_and_tenants_share_no_caches(start: Start, tmp_path: Any) -> None:
    from gateway.access import key_edits as keys

    file = tmp_path / "keys.yaml"
    secrets = [keys.create(file, name) for name in ("alice", "bob")]
    gateway = await start(auth={"keys_file": str(file)})
    gateway.engine.behaviour = saying(numbered)

    stranger = await post(gateway)
    for secret in secrets:
        gateway.client.headers["authorization"] = f"Bearer {secret}"
        assert (await post(gateway)).status_code == 200

    salts = {request.json()["cache_salt"] for request in gateway.engine.requests}
    uuids = {part["uuid"] for request in gateway.engine.requests for part in parts(request) if "uuid" in part}
    assert stranger.status_code == 401
    assert (len(salts), len(uuids)) == (2, 2)


async def test_same_recording_is_known_to_the_engine_by_the_same_keys(gateway: Running) -> None:
    for _ in range(2):
        await post(gateway, long_recording(2))

    uuids = [part["uuid"] for request in gateway.engine.requests for part in parts(request) if "uuid" in part]
    assert len(uuids) == 4
    assert len(set(uuids)) == 2


async def test_description_tells_of_both_routes(gateway: Running) -> None:
    paths = (await gateway.client.get("/openapi.json")).json()["paths"]

    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        (kind,) = paths[path]["post"]["requestBody"]["content"]
        assert kind == "multipart/form-data"
