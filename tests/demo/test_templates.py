"""What the chat templates of the small Gemmas make of a conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.demo.model import Shape
from gateway.settings import Family
from tests.demo.loading import SmallGemma, load_processor

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

Messages = list[dict[str, Any]]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a day",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["city"],
        },
    },
}
DECLARATION = (
    '<|tool>declaration:weather{description:<|"|>The weather of a day<|"|>,parameters:{properties:{'
    'city:{description:<|"|>Where<|"|>,type:<|"|>STRING<|"|>},'
    'days:{items:{type:<|"|>INTEGER<|"|>},type:<|"|>ARRAY<|"|>},'
    'unit:{enum:[<|"|>C<|"|>,<|"|>F<|"|>],type:<|"|>STRING<|"|>}},'
    'required:[<|"|>city<|"|>],type:<|"|>OBJECT<|"|>}}<tool|>'
)
ARGUMENTS = {"city": 'Bad "Ems", {DE}', "days": [1, 2], "near": {"km": 2.5, "sea": False, "lake": None}}
CALL = (
    '<|tool_call>call:weather{city:<|"|>Bad "Ems", {DE}<|"|>,days:[1,2],near:{km:2.5,lake:null,sea:false}}<tool_call|>'
)


def user(*content: str) -> dict[str, Any]:
    """A user's message: of text, or where there are several, of parts (`image`, `audio` and `video` stand for such)."""
    if len(content) == 1:
        return {"role": "user", "content": content[0]}
    media = ("image", "audio", "video")
    return {"role": "user", "content": [{"type": p} if p in media else {"type": "text", "text": p} for p in content]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def calls(**arguments: Any) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "call_1", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}

GEMMA4: list[tuple[Messages, dict[str, Any], str]] = [
    ([user(" Hi ")], {}, "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"),
    (
        [SYSTEM, user("Hi")],
        {},
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n",
    ),
    (
        [user("Hi"), assistant("Hello"), user("Bye")],
        {},
        "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n",
    ),
    (
        [user("See", "image", "hear", "audio", "audio", "video", "image")],
        {},
        "<bos><|turn>user\nSee<|image|>hear<|audio|><|audio|><|video|><|image|><turn|>\n<|turn>model\n",
    ),
    (
        [user("Why?")],
        {"enable_thinking": True},
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nWhy?<turn|>\n<|turn>model\n",
    ),
    (
        [SYSTEM, user("Why?"), assistant("<|channel>thought\nHm.<channel|>So."), user("Oh")],
        {"enable_thinking": True},
        "<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n<|turn>user\nWhy?<turn|>\n"
        "<|turn>model\nSo.<turn|>\n<|turn>user\nOh<turn|>\n<|turn>model\n",
    ),
    (
        [SYSTEM, user("Rain?")],
        {"tools": [WEATHER]},
        f"<bos><|turn>system\nBe brief.{DECLARATION}<turn|>\n<|turn>user\nRain?<turn|>\n<|turn>model\n",
    ),
    (
        [user("Rain?"), calls(**ARGUMENTS), result("sunny")],
        {"tools": [WEATHER]},
        f"<bos><|turn>system\n{DECLARATION}<turn|>\n<|turn>user\nRain?<turn|>\n<|turn>model\n{CALL}"
        '<|tool_response>response:weather{value:<|"|>sunny<|"|>}<tool_response|>',
    ),
    (
        [user("Rain?"), calls(), result("no"), assistant("None."), user("Good")],
        {},
        "<bos><|turn>user\nRain?<turn|>\n<|turn>model\n<|tool_call>call:weather{}<tool_call|>"
        '<|tool_response>response:weather{value:<|"|>no<|"|>}<tool_response|>None.<turn|>\n'
        "<|turn>user\nGood<turn|>\n<|turn>model\n",
    ),
]

GEMMA3: list[tuple[Messages, str]] = [
    ([user("Hi")], "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"),
    ([SYSTEM, user("Hi")], "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"),
    (
        [user("image", "See", "image"), assistant("Yes"), user("Bye")],
        "<bos><start_of_turn>user\n<start_of_image>See<start_of_image><end_of_turn>\n<start_of_turn>model\nYes"
        "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    ),
]


def render(processor: Any, messages: Messages, **options: Any) -> str:
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True, **options
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(("messages", "options", "expected"), GEMMA4)
def test_gemma_4_writes_turns(
    messages: Messages, options: dict[str, Any], expected: str, small_gemma: SmallGemma
) -> None:
    processor = load_processor(small_gemma(Family.GEMMA4, Shape.E))
    assert render(processor, messages, **options) == expected


@pytest.mark.parametrize(("messages", "expected"), GEMMA3)
def test_gemma_3_folds_the_system_message_into_the_first_turn(
    messages: Messages, expected: str, small_gemma: SmallGemma
) -> None:
    assert render(load_processor(small_gemma(Family.GEMMA3, Shape.E)), messages) == expected


@pytest.mark.parametrize("messages", [[assistant("Hi")], [user("a"), user("b")], [user("a"), result("b")]])
def test_gemma_3_refuses_roles_that_do_not_alternate(messages: Messages, small_gemma: SmallGemma) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError, match="must alternate"):
        render(load_processor(small_gemma(Family.GEMMA3, Shape.E)), messages)


def test_large_gemma_4_gets_an_empty_thought_unless_it_is_to_think(small_gemma: SmallGemma) -> None:
    processor = load_processor(small_gemma(Family.GEMMA4, Shape.DENSE))
    assert render(processor, [user("Hi")]).endswith("<|turn>model\n<|channel>thought\n<channel|>")
    assert render(processor, [user("Hi")], enable_thinking=True).endswith("<|turn>model\n")


@pytest.mark.parametrize("family", [Family.GEMMA4, Family.GEMMA3])
def test_vllm_sees_that_the_template_takes_parts(family: Family, small_gemma: SmallGemma) -> None:
    """Otherwise vLLM would join text and media itself, in an order and with line breaks of its own."""
    processor = load_processor(small_gemma(family, Shape.E))
    from vllm.renderers.hf import _detect_content_format

    assert _detect_content_format(processor.chat_template, default="string") == "openai"


def test_vllm_reads_back_a_tool_call_as_the_template_writes_it(small_gemma: SmallGemma) -> None:
    processor = load_processor(small_gemma(Family.GEMMA4, Shape.E))
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    request = ChatCompletionRequest(messages=[user("Rain?")], tools=[WEATHER])
    parser = ToolParserManager.get_tool_parser("gemma4")(processor.tokenizer, request.tools)
    found = parser.extract_tool_calls(CALL, request)
    assert [call.function.name for call in found.tool_calls] == ["weather"]
    assert json.loads(found.tool_calls[0].function.arguments)["city"] == ARGUMENTS["city"]
    assert json.loads(found.tool_calls[0].function.arguments)["days"] == ARGUMENTS["days"]


def test_vllm_separates_a_thought_from_the_answer(small_gemma: SmallGemma) -> None:
    processor = load_processor(small_gemma(Family.GEMMA4, Shape.E))
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager

    request = ChatCompletionRequest(messages=[user("Why?")])
    parser = ReasoningParserManager.get_reasoning_parser("gemma4")(processor.tokenizer)
    thought = parser.extract_reasoning("<|channel>thought\nHm.<channel|>So.", request)
    assert thought == ("Hm.", "So.")
