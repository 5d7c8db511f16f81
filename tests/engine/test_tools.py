"""Tool calls with OpenAI's SDK: demanded ones happen, though the small model's random weights never want any."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from gateway.engine.gemmas import SHAPES, TOOL_PARSER, Preset
from gateway.settings import Family
from tests.demo.loading import load_processor

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

HELLO = [{"role": "user", "content": "Hello there"}]
CITY = {"type": "string", "enum": ["Bern", "Oslo"]}


def tool(name: str, properties: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": {**schema, **others}}}


WEATHER = tool("get_weather", {"city": CITY})
#: What a nested pydantic model becomes: types behind references, in lists, behind a choice with null.
TRIP = tool(
    "plan_trip",
    {
        "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}, "minItems": 1, "maxItems": 2},
        "budget": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]},
        "day": {"type": "string", "pattern": "^20[0-9]{2}-(06|07)$"},
    },
    **{
        "$defs": {
            "Stop": {
                "type": "object",
                "properties": {"city": CITY, "nights": {"type": "integer", "minimum": 1, "maximum": 9}},
                "required": ["city", "nights"],
                "additionalProperties": False,
            }
        }
    },
)
TOOLS = [WEATHER, TRIP]
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}

NAMED = {"type": "function", "function": {"name": "get_weather"}}
NAMED_TRIP = {"type": "function", "function": {"name": "plan_trip"}}
NAMED_IN_RESPONSES = {"type": "function", "name": "get_weather"}
#: In chat completions.
BY_NAME_OR_ANY = pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
WHOLE_OR_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

THINKING = {"chat_template_kwargs": {"enable_thinking": True}}


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    request = {"model": "gemma", "messages": HELLO, "max_tokens": 400, "temperature": 0, "tools": TOOLS, **fields}
    return client.chat.completions.create(**request)


def joined(chunks: Iterable[Any]) -> tuple[list[tuple[str, str]], str, str | None]:
    """The calls (name, arguments), the text and the finish reason of a stream of one choice."""
    calls: list[tuple[str, str]] = []
    text, finish = "", None
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        text += choice.delta.content or ""
        finish = choice.finish_reason or finish
        for part in choice.delta.tool_calls or []:
            if part.function.name:
                assert part.id
                assert part.index == len(calls)
                calls.append((part.function.name, ""))
            name, arguments = calls[part.index]
            calls[part.index] = (name, arguments + (part.function.arguments or ""))
    return calls, text, finish


def whole(answer: Any) -> tuple[list[tuple[str, str]], str, str | None]:
    """The same of an answer that is not streamed."""
    choice = answer.choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    return calls, choice.message.content or "", choice.finish_reason


def assert_fit(calls: list[tuple[str, str]]) -> None:
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])


@WHOLE_OR_STREAMED
@pytest.mark.parametrize("choice", [NAMED, NAMED_TRIP], ids=["plain", "nested"])
def test_named_tool_is_called_with_arguments_that_fit(
    client: openai.OpenAI, choice: dict[str, Any], stream: bool
) -> None:
    answer = ask(client, tool_choice=choice, stream=stream)

    calls, text, finish = joined(answer) if stream else whole(answer)
    assert [name for name, _ in calls] == [choice["function"]["name"]]
    assert_fit(calls)
    # As OpenAI has it: the client named the tool, so that the call is the answer.
    assert (text, finish) == ("", "stop")


@WHOLE_OR_STREAMED
def test_required_calls_one_of_two_tools(client: openai.OpenAI, stream: bool) -> None:
    answer = ask(client, tool_choice="required", parallel_tool_calls=False, stream=stream)

    calls, text, finish = joined(answer) if stream else whole(answer)
    assert len(calls) == 1
    assert_fit(calls)
    assert (text, finish) == ("", "tool_calls")


def test_required_may_be_answered_by_several_calls(client: openai.OpenAI) -> None:
    calls, text, _ = joined(ask(client, tool_choice="required", stream=True, max_tokens=200, temperature=1, seed=3))

    assert_fit(calls[:-1])
    assert calls
    assert not text


@pytest.fixture(scope="module")
def marks(client: openai.OpenAI) -> dict[str, str]:
    """The ids of the special tokens that end a thought and open a native call, as `logit_bias` takes them."""
    root = str(client.base_url).removesuffix("/v1/")
    found = {}
    for mark in ("<channel|>", "<|tool_call>"):
        body = {"model": "gemma", "prompt": mark, "add_special_tokens": False}
        (token,) = client.post(f"{root}/tokenize", body=body, cast_to=dict)["tokens"]
        found[mark] = str(token)
    return found


@WHOLE_OR_STREAMED
@BY_NAME_OR_ANY
def test_call_follows_the_thought_of_a_thinking_model(
    client: openai.OpenAI, marks: dict[str, str], choice: Any, stream: bool
) -> None:
    at_once = {marks["<channel|>"]: 100}
    answer = ask(
        client, tool_choice=choice, stream=stream, logit_bias=at_once, parallel_tool_calls=False, extra_body=THINKING
    )

    calls, text, _ = joined(answer) if stream else whole(answer)
    assert len(calls) == 1
    assert_fit(calls)
    assert not text


@BY_NAME_OR_ANY
def test_thinking_model_thinks_before_it_calls(client: openai.OpenAI, choice: Any) -> None:
    answer = ask(client, tool_choice=choice, max_tokens=20, extra_body=THINKING)

    assert whole(answer) == ([], "", "length")
    assert answer.choices[0].message.reasoning


@pytest.mark.parametrize("choice", [NAMED_IN_RESPONSES, "required"], ids=["named", "required"])
@pytest.mark.parametrize("mark", [None, "<channel|>", "<|tool_call>"])
def test_responses_call_too(client: openai.OpenAI, marks: dict[str, str], choice: Any, mark: str | None) -> None:
    """Without thinking; after a thought; and after one that the opening of a native call cut short."""
    request: dict[str, Any] = {
        "model": "gemma",
        "input": "Hello",
        "max_output_tokens": 400,
        "temperature": 0,
        "parallel_tool_calls": False,
        "tools": [{"type": "function", **t["function"]} for t in TOOLS],
        "tool_choice": choice,
        "extra_body": {**THINKING, "logit_bias": {marks[mark]: 100}} if mark else {},
    }
    answer = client.responses.create(**request)
    events = client.responses.create(**request, stream=True)

    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    calls = [(item.name, item.arguments) for item in answer.output if item.type == "function_call"]
    assert len(calls) == len(done) == 1
    assert_fit([*calls, (done[0].name, done[0].arguments)])


def test_every_choice_of_several_has_a_call_of_its_own(client: openai.OpenAI) -> None:
    answer = ask(client, tool_choice=NAMED, n=2, temperature=1, seed=1)

    calls = [choice.message.tool_calls for choice in answer.choices]
    assert [len(of_one) for of_one in calls] == [1, 1]
    assert calls[0][0].id != calls[1][0].id


def test_demanded_call_outranks_a_response_format(client: openai.OpenAI) -> None:
    calls, _, _ = whole(ask(client, tool_choice=NAMED, response_format={"type": "json_object"}))

    assert [name for name, _ in calls] == ["get_weather"]
    assert_fit(calls)


@BY_NAME_OR_ANY
def test_schema_that_cannot_be_followed_is_a_400_that_says_why(client: openai.OpenAI, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError, match='Unsupported type "strin"') as refusal:
        ask(client, tools=[tool("get_weather", {"city": {"type": "strin"}})], tool_choice=choice)

    assert refusal.value.param == "tools"


def test_model_that_may_call_chats_if_it_likes(client: openai.OpenAI) -> None:
    calls, text, _ = whole(ask(client, max_tokens=20))
    streamed = joined(ask(client, max_tokens=20, stream=True))

    assert not calls
    assert text
    assert streamed[:2] == (calls, text)


@pytest.mark.parametrize("name", SHAPES)
def test_preset_has_a_parser_without_which_vllm_refuses_requests_with_tools(name: str) -> None:
    preset = Preset(name, SHAPES[name])

    assert preset.args["enable-auto-tool-choice"] is True
    assert preset.args["tool-call-parser"] == (TOOL_PARSER if preset.family is Family.GEMMA4 else "pythonic")


NATIVE = '<|tool_call>call:get_weather{city:<|"|>Bern<|"|>}<tool_call|>'


def parser(model: Path, name: str) -> tuple[Any, Any]:
    """vLLM's tool parser of that name, after its plugins were loaded, and a request that leaves the choice to it."""
    tokenizer = load_processor(model).tokenizer
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.plugins import load_general_plugins
    from vllm.tool_parsers import ToolParserManager

    load_general_plugins()
    request = ChatCompletionRequest(messages=HELLO, tools=TOOLS)
    return ToolParserManager.get_tool_parser(name)(tokenizer, request.tools), request


def test_call_of_the_models_own_accord_is_read_in_its_native_notation(model: Path) -> None:
    ours, request = parser(model, TOOL_PARSER)
    found = ours.extract_tool_calls(NATIVE, request)

    (call,) = found.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Bern"})
    assert not found.content


def test_call_of_the_models_own_accord_is_streamed(model: Path) -> None:
    ours, request = parser(model, TOOL_PARSER)
    ids = ours.model_tokenizer.encode(NATIVE, add_special_tokens=False)
    pieces = [(ours.model_tokenizer.decode([one]), [one]) for one in ids]
    deltas = [ours.extract_tool_calls_streaming("", "", text, [], [], one, request) for text, one in pieces]

    parts = [part.function for delta in deltas if delta for part in delta.tool_calls or []]
    assert [part.name for part in parts if part.name] == ["get_weather"]
    assert json.loads("".join(part.arguments or "" for part in parts)) == {"city": "Bern"}


def test_request_that_demands_no_call_is_left_as_vllm_has_it(model: Path) -> None:
    (ours, request), (theirs, same) = parser(model, TOOL_PARSER), parser(model, "gemma4")

    left_out = {"request_id"}
    adjusted, expected = ours.adjust_request(request), theirs.adjust_request(same)

    assert adjusted.model_dump(exclude=left_out) == expected.model_dump(exclude=left_out)
    assert request.structured_outputs is None
