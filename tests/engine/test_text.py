"""What the OpenAI SDK can ask of text, through gateway and vLLM."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam

pytestmark = pytest.mark.engine

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello there"}]
#: The small model's weights are random: it would stop or not as chance has it.
GO_ON = {"ignore_eos": True}


def ask(client: openai.OpenAI, **fields: object) -> ChatCompletion:
    request: dict[str, object] = {"model": "gemma", "messages": HELLO, "max_tokens": 8, "temperature": 0, **fields}
    return client.chat.completions.create(**request)  # type: ignore[call-overload,no-any-return]


def test_chat_answers_with_usage_and_a_finish_reason(client: openai.OpenAI) -> None:
    answer = ask(client, extra_body=GO_ON)

    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_stream_is_the_same_text_in_chunks_with_one_finish_reason(client: openai.OpenAI) -> None:
    whole = ask(client, extra_body=GO_ON).choices[0].message.content

    chunks = list(
        client.chat.completions.create(
            model="gemma", messages=HELLO, max_tokens=8, temperature=0, stream=True, extra_body=GO_ON
        )
    )

    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["length"]
    assert all(c.usage is None for c in chunks)


def test_stream_tells_the_usage_in_a_last_chunk_when_asked(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gemma",
            messages=HELLO,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=GO_ON,
        )
    )

    *others, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 8
    assert all(c.usage is None for c in others)


def test_n_gives_so_many_choices(client: openai.OpenAI) -> None:
    answer = ask(client, n=3, temperature=1, seed=1, extra_body=GO_ON)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_temperature_zero_and_a_seed_repeat(client: openai.OpenAI) -> None:
    cold = [ask(client).choices[0].message.content for _ in range(2)]
    seeded = [ask(client, temperature=1, seed=7, max_tokens=16).choices[0].message.content for _ in range(2)]
    other = ask(client, temperature=1, seed=8, max_tokens=16).choices[0].message.content

    assert cold[0] == cold[1]
    assert seeded[0] == seeded[1] != other


def ids(answer: ChatCompletion) -> list[int]:
    """The generated ids: texts of a random model may hide what differs."""
    return answer.choices[0].token_ids  # type: ignore[attr-defined,no-any-return]


def test_stop_ends_the_answer_before_the_stop_text(client: openai.OpenAI) -> None:
    everything = {"ignore_eos": True, "allowed_token_ids": None}
    text = ask(client, max_tokens=64, extra_body=everything).choices[0].message.content or ""
    stop = next(c for c in text[3:] if c.isascii() and c.isprintable())

    answer = ask(client, max_tokens=64, stop=[stop], extra_body=everything)

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == text[: text.index(stop)]


def test_penalties_change_what_repeats(client: openai.OpenAI) -> None:
    body = {**GO_ON, "return_token_ids": True}
    plain = ids(ask(client, max_tokens=48, extra_body=body))

    frequency = ids(ask(client, max_tokens=48, frequency_penalty=2, extra_body=body))
    presence = ids(ask(client, max_tokens=48, presence_penalty=2, extra_body=body))

    assert plain != frequency
    assert plain != presence
    assert len(set(frequency)) > len(set(plain))


def test_logprobs_come_with_alternatives_in_order(client: openai.OpenAI) -> None:
    answer = ask(client, logprobs=True, top_logprobs=3, extra_body=GO_ON)

    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert len(content) == 8
    for token in content:
        values = [alternative.logprob for alternative in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.logprob == pytest.approx(values[0])


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORCED = {"type": "function", "function": {"name": "get_weather"}}


def test_forced_tool_call_has_arguments_that_fit_the_schema(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=200, tools=[WEATHER], tool_choice=FORCED)

    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather"]  # type: ignore[union-attr]
    assert json.loads(calls[0].function.arguments)["city"] in ("Bern", "Oslo")  # type: ignore[union-attr]


def test_forced_tool_call_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model="gemma",
        messages=HELLO,
        max_tokens=200,
        temperature=0,
        tools=[WEATHER],
        tool_choice=FORCED,
        stream=True,
    )

    parts = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [part.function.name for part in parts if part.function.name] == ["get_weather"]
    assert json.loads("".join(part.function.arguments or "" for part in parts))["city"] in ("Bern", "Oslo")


def test_json_schema_answer_validates(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    answer = ask(
        client,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}},
    )

    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)


def test_completions_answer_and_stream(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="gemma", prompt="One two", max_tokens=6, temperature=0, extra_body=GO_ON)
    stream = client.completions.create(
        model="gemma", prompt="One two", max_tokens=6, temperature=0, stream=True, extra_body=GO_ON
    )

    assert whole.choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_responses_answer_and_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="gemma", input="Hello", max_output_tokens=8, temperature=0)
    events = list(
        client.responses.create(model="gemma", input="Hello", max_output_tokens=8, temperature=0, stream=True)
    )

    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")


def test_tokenize_and_detokenize_are_inverse(client: openai.OpenAI, server: object) -> None:
    root = str(client.base_url).removesuffix("/v1/")
    tokens = client.post(
        f"{root}/tokenize", body={"model": "gemma", "prompt": "Grüezi 👋", "add_special_tokens": False}, cast_to=dict
    )
    text = client.post(f"{root}/detokenize", body={"model": "gemma", "tokens": tokens["tokens"]}, cast_to=dict)

    assert tokens["count"] == len(tokens["tokens"]) > 0
    assert text["prompt"] == "Grüezi 👋"


def test_models_lists_the_served_name_and_any_other_name_is_accepted(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    ignored = ask(client, model="ignore")

    assert [model.id for model in listed] == ["gemma"]
    assert client.models.retrieve("gemma").id == "gemma"
    assert ignored.choices


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"max_tokens": 1_000_000}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "context length"),
    ({"n": 0}, "n"),
    ({"extra_body": {"mm_processor_kwargs": {"do_resize": False}}}, "do_resize"),
]


@pytest.mark.parametrize(("fields", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_bad_parameter_is_a_400_that_names_it(client: openai.OpenAI, fields: dict[str, object], named: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, **fields)

    assert named in str(refusal.value.body)


def test_32_streams_of_different_lengths_all_finish(client: openai.OpenAI) -> None:
    def stream(length: int) -> tuple[int, str | None]:
        chunks = client.chat.completions.create(
            model="gemma",
            messages=[{"role": "user", "content": f"Count {'on ' * length}"}],
            max_tokens=length,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=GO_ON,
        )
        *others, last = list(chunks)
        assert last.usage is not None
        return last.usage.completion_tokens, others[-1].choices[0].finish_reason

    lengths = [4 + 3 * number for number in range(32)]
    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(stream, lengths))

    assert results == [(length, "length") for length in lengths]
