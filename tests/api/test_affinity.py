"""A request tells by hashes where its beginning may be in a cache."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.affinity import hints
from gateway.protocol import InferenceRequest, parse
from gateway.upstream.policies import NO_HINTS, Hints

CHAT = "/v1/chat/completions"
LONG = "You are a careful clerk. " * 100
IMAGE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 80).decode()
OTHER_IMAGE = "data:image/png;base64," + base64.b64encode(bytes(reversed(range(256))) * 80).decode()


def of(path: str = CHAT, *, tenant: str | None = None, **fields: Any) -> tuple[int, ...]:
    return hints(parse(path, json.dumps(fields).encode()), None, tenant).prefixes


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def shown(image: str, question: str) -> dict[str, Any]:
    return said("user", [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": image}}])


def test_all_turns_of_a_conversation_have_the_same_prefixes() -> None:
    first = [said("system", LONG), said("user", "Hello")]
    later = [*first, said("assistant", "Hi."), said("user", "What can you do?")]

    assert of(messages=first) == of(messages=later)
    assert len(of(messages=first)) == 2


def test_conversations_of_one_system_prompt_share_the_first_prefix_only() -> None:
    one, other = (of(messages=[said("system", LONG), said("user", text)]) for text in ("Hello", "Bye"))

    assert one[0] == other[0]
    assert one[-1] != other[-1]


@pytest.mark.parametrize("more", [{"tools": [{"type": "function"}]}, {"cache_salt": "x"}, {"model": "other"}])
def test_what_changes_the_prompt_or_its_cache_changes_every_prefix(more: dict[str, Any]) -> None:
    messages = [said("system", LONG), said("user", "Hello")]

    assert not set(of(messages=messages, **more)) & set(of(messages=messages))


def test_settings_of_the_answer_change_nothing() -> None:
    messages = [said("developer", LONG), said("user", "Hello")]

    assert of(messages=messages, temperature=0.5, max_tokens=10, stream=True) == of(messages=messages)


def test_tenants_share_nothing() -> None:
    messages = [said("system", LONG), said("user", "Hello")]
    alone = [of(messages=messages, tenant=tenant) for tenant in (None, "a", "b")]

    assert len({prefix for prefixes in alone for prefix in prefixes}) == 6


def test_questions_about_one_image_share_its_prefix() -> None:
    one, other = (of(messages=[said("system", LONG), shown(IMAGE, text)]) for text in ("What?", "Where?"))

    assert len(one) == 3
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_images_differ() -> None:
    one, other = (of(messages=[said("system", LONG), shown(image, "What?")]) for image in (IMAGE, OTHER_IMAGE))

    assert one[0] == other[0]
    assert one[1] != other[1]


def test_hashes_are_the_same_in_every_process() -> None:
    """Also where a mark that no other process knows stands for an image."""
    body = json.dumps({"messages": [said("system", LONG), shown(IMAGE, "What?")]}).encode()
    code = (
        "import sys; from gateway.api.affinity import hints; from gateway.protocol import parse;"
        f"print(hints(parse({CHAT!r}, sys.stdin.buffer.read()), None, None).prefixes)"
    )

    told = subprocess.run([sys.executable, "-c", code], input=body, capture_output=True, check=True, timeout=30).stdout

    assert told.decode().strip() == str(hints(parse(CHAT, body), None, None).prefixes)


def test_long_first_turns_that_begin_alike_share_a_prefix() -> None:
    one, other = (of(messages=[said("user", LONG + question)]) for question in ("What?", "Where?"))

    assert one[0] == other[0]
    assert one[-1] != other[-1]


def test_growing_prompt_keeps_its_prefixes() -> None:
    prompt = LONG * 3

    assert of("/v1/completions", prompt=prompt) == of("/v1/completions", prompt=prompt + " And then?")


def test_prompts_of_token_ids_differ() -> None:
    one, other = (of("/v1/completions", prompt=[2, *range(start, start + 900)]) for start in (100, 1000))

    assert one[-1] != other[-1]


def test_client_can_tell_conversations_apart_that_begin_alike() -> None:
    messages = [said("system", LONG), said("user", "Hello")]
    one, other = (of(messages=messages, prompt_cache_key=key) for key in ("a", "b"))

    assert one[0] == other[0] == of(messages=messages)[0]
    assert one[-1] != other[-1]


def test_anthropic_system_is_the_first_prefix_whatever_is_marked_for_the_cache() -> None:
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    plain = {"type": "text", "text": LONG}
    one = of("/v1/messages", system=[marked], messages=[said("user", "Hello")])

    assert one == of("/v1/messages", system=[plain], messages=[said("user", "Hello")])
    assert one[0] == of("/v1/messages", system=[plain], messages=[said("user", "Bye")])[0]


@pytest.mark.parametrize("given_", ["Hello", [{"role": "user", "content": "Hello"}]])
def test_responses_instructions_are_the_first_prefix(given_: Any) -> None:
    one = of("/v1/responses", instructions=LONG, input=given_)

    assert len(one) == 2
    assert one[0] == of("/v1/responses", instructions=LONG, input="Bye")[0]


def test_short_request_has_nothing_worth_finding() -> None:
    request = parse(CHAT, json.dumps({"messages": [said("user", "Hello")]}).encode())

    assert hints(request, None, None) is NO_HINTS
    assert hints(request, b"mine", None) == Hints((), b"mine")


def test_embeddings_have_no_cache() -> None:
    assert of("/v1/embeddings", input=LONG) == ()


@pytest.mark.parametrize(
    "messages",
    [
        "[" + "1," * 600 + "1]",
        '[{"role": 5, "content": "' + "x" * 2000 + '"}]',
        '["' + "x" * 2000 + '"]',
        "[" * 3000 + "]" * 3000,
        '{"role": "' + "x" * 2000 + '"}',
        '[{"role": "system", "content": "' + "x" * 2000 + '"}]',
        "[]" + " " * 2000,
        '[{"role": "system"' + "x" * 2000,
        '"' + "x" * 2000,
    ],
)
def test_nonsense_raises_nothing(messages: str) -> None:
    request = InferenceRequest(CHAT, {"messages": msgspec.Raw(messages.encode())}, b"")

    assert len(hints(request, None, None).prefixes) <= 3


@given(st.binary(min_size=1100, max_size=1500), st.sampled_from([b"", b"[", b'[{"role":', b'[{"role":"system"},']))
@settings(max_examples=50)
def test_any_bytes_raise_nothing(raw: bytes, before: bytes) -> None:
    request = InferenceRequest(CHAT, {"messages": msgspec.Raw(before + raw)}, b"")

    assert all(0 <= prefix < 1 << 64 for prefix in hints(request, None, None).prefixes)
