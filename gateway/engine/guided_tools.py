"""Makes Gemma 4 call a tool when the client says that it must: a tool parser that guides the decoding.

vLLM 0.32's own parser, `gemma4`, reads the calls that the model chooses to make in its native notation, but leaves
`tool_choice` "required", or of one function, to the model's goodwill: a model that would rather chat answers in text.
This parser is the same for "auto". For the other two it makes the model write its call as JSON that fits the tool's
schema (a thought first, where thinking is on) and reads that. JSON, because it keeps types and every keyword that
xgrammar knows of a schema; in the native notation vLLM loses the types inside nested `$ref` and `anyOf`.

Superfluous once vllm/tool_parsers/gemma4_engine_tool_parser.py enforces them, or names a `structural_tag_model`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from openai.types.responses import ToolChoiceFunction
from pydantic import TypeAdapter, ValidationError
from vllm.entrypoints.generate.base.protocol import (
    DeltaMessage,
    ExtractedToolCallInformation,
    FunctionCall,
    FunctionDefinition,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionNamedToolChoiceParam
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.parser.gemma4 import CHANNEL_END, CHANNEL_START, TOOL_CALL_START
from vllm.sampling_params import StructuredOutputsParams, check_json_nesting
from vllm.tool_parsers.gemma4_engine_tool_parser import Gemma4EngineToolParser
from vllm.tool_parsers.streaming import extract_named_tool_call_streaming, extract_required_tool_call_streaming
from vllm.tool_parsers.utils import get_json_schema_from_tools
from xgrammar import Grammar

#: Blanks in a row that the model may write between the parts of its JSON: without a bound, some never stop.
BLANKS = 1

#: What xgrammar puts before the cause of an error: the time, and a line of its code.
PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")

#: What "required" makes the model write.
CALLS = TypeAdapter(list[FunctionDefinition])


class Gemma4GuidedToolParser(Gemma4EngineToolParser):  # type: ignore[misc]
    """vLLM's parser for Gemma 4, that enforces a tool call where the client demands one."""

    def __init__(self, tokenizer: Any, tools: Any = None, **kwargs: Any) -> None:
        super().__init__(tokenizer, tools, **kwargs)
        self._thinks = bool((kwargs.get("chat_template_kwargs") or {}).get("enable_thinking"))
        self._streamed = ""

    def adjust_request(self, request: Any) -> Any:
        """Has the decoding guided by the schema of the tools, where a call is demanded.

        It replaces a `response_format`: a call leaves no room for another answer. Raises VLLMValidationError, status
        400 for the client, for a schema that cannot be followed.
        """
        request = super().adjust_request(request)
        if not is_forced(request):
            return request
        schema = get_json_schema_from_tools(request.tool_choice, request.tools, request.parallel_tool_calls)
        tag = json.dumps({"type": "structural_tag", "format": self._sequence(request, schema)})
        _check(tag)
        request.structured_outputs = StructuredOutputsParams(structural_tag=tag)
        if isinstance(request, ResponsesRequest):
            request.text = None
        else:
            request.response_format = None
            # The grammar has the thought in it: vLLM is to apply it from the first token on.
            request._grammar_from_parser = True  # noqa: SLF001 - vLLM's word from a tool parser to its server
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> Any:
        """The calls in a whole answer, without its thought. One that was cut short may hold none."""
        if not is_forced(request):
            return super().extract_tool_calls(model_output, request)
        text = model_output.removeprefix(TOOL_CALL_START).strip()
        if not text.startswith(("{", "[")):
            # A thought that never ended: in the Responses API it is not guided.
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)
        calls = [ToolCall(function=function) for function in _functions(text, request)]
        return ExtractedToolCallInformation(tools_called=bool(calls), tool_calls=calls, content=None)

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Any,
    ) -> Any:
        """What `delta_text` adds to the calls, or None. It keeps the text itself: vLLM gives only what is new."""
        if not is_forced(request):
            return super().extract_tool_calls_streaming(
                previous_text,
                current_text,
                delta_text,
                previous_token_ids,
                current_token_ids,
                delta_token_ids,
                request,
            )
        before = self._streamed
        new = delta_text if before else delta_text.removeprefix(TOOL_CALL_START).lstrip()
        self._streamed += new
        return self._delta(before, new, request) if new else None

    def _delta(self, before: str, new: str, request: Any) -> DeltaMessage | None:
        name = _named(request)
        if name is None:
            message, _ = extract_required_tool_call_streaming(
                previous_text=before, current_text=before + new, tool_call_idx=None, tool_call_id_type="random"
            )
        else:
            message, _ = extract_named_tool_call_streaming(
                delta_text=new,
                function_name=name,
                function_name_returned=bool(before),
                tool_call_idx=None,
                tool_call_id_type="random",
                tokenizer=self.model_tokenizer,
            )
        return message

    def _sequence(self, request: Any, schema: Any) -> Mapping[str, Any]:
        """The format of the whole answer, in the terms of https://xgrammar.mlc.ai/docs (structural tag)."""
        call = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": BLANKS}
        if not self._thinks:
            return call
        before = self._opener() if isinstance(request, ResponsesRequest) else self._thought()
        return {"type": "sequence", "elements": [before, call]}

    def _thought(self) -> Mapping[str, Any]:
        start, end = self.vocab[CHANNEL_START], self.vocab[CHANNEL_END]
        others = sorted({*self.model_tokenizer.all_special_ids, start, end, self.vocab[TOOL_CALL_START]})
        return {
            "type": "tag",
            "begin": {"type": "token", "token": start},
            "content": {"type": "any_tokens", "exclude_tokens": others},
            "end": {"type": "token", "token": end},
        }

    def _opener(self) -> Mapping[str, Any]:
        """In the Responses API vLLM guides only what follows the thought, which a native call's first token may end."""
        return {"type": "optional", "content": {"type": "token", "token": self.vocab[TOOL_CALL_START]}}


def is_forced(request: Any) -> bool:
    """Whether the client demands a call: of any tool, or of a certain function."""
    return bool(request.tools) and (request.tool_choice == "required" or _named(request) is not None)


def _named(request: Any) -> str | None:
    choice = request.tool_choice
    if isinstance(choice, ChatCompletionNamedToolChoiceParam):
        return str(choice.function.name)
    return choice.name if isinstance(choice, ToolChoiceFunction) else None


def _check(tag: str) -> None:
    try:
        check_json_nesting(tag, structural_tag=True)
        Grammar.from_structural_tag(tag)
    except RuntimeError as fault:
        cause = PLACE.sub("", str(fault)).strip()
        message = f"the parameters of a tool are no JSON schema that a call can be held to: {cause}"
        raise VLLMValidationError(message, parameter="tools") from fault


def _functions(text: str, request: Any) -> list[FunctionCall]:
    name = _named(request)
    if name is not None:
        return [FunctionCall(name=name, arguments=text)]
    try:
        calls = CALLS.validate_json(text)
    except ValidationError:
        return []
    return [FunctionCall(name=c.name, arguments=json.dumps(c.parameters, ensure_ascii=False)) for c in calls]
