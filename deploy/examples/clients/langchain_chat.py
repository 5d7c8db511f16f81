"""LangChain: an answer, a stream, a typed answer, a tool. `pip install langchain-openai`."""
# ruff: noqa: T201 - an example shows what it gets

from __future__ import annotations

import os
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(
    model="gemma",
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
    max_tokens=200,
    temperature=0,
)


class Person(BaseModel):
    """Somebody, as told."""

    name: str
    age: int
    city: str


@tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather in a city."""
    return f"It is clear in {city}."


print(model.invoke("Hello!").usage_metadata)

for piece in model.stream("Hello!"):
    print(piece.content, end="", flush=True)
print()

sentence = "Make this JSON: Vera is 30 years old and lives in Oslo."
print(model.with_structured_output(Person, method="json_schema").invoke(sentence))

called = model.bind_tools([weather], tool_choice="any", parallel_tool_calls=False).invoke("How is the weather in Oslo?")
print([weather.invoke(call["args"]) for call in called.tool_calls])
