"""LlamaIndex: an answer, a stream, a typed answer. `pip install llama-index-llms-openai-like`."""
# ruff: noqa: T201 - an example shows what it gets

from __future__ import annotations

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

model = OpenAILike(
    model="gemma",
    api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
    # OpenAILike knows nothing of a model by its name.
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
    context_window=8192,
    max_tokens=200,
    temperature=0,
)


class Person(BaseModel):
    """Somebody, as told."""

    name: str
    age: int
    city: str


question = [ChatMessage(role="user", content="Hello!")]
print(model.chat(question).raw.usage)

for piece in model.stream_chat(question):
    print(piece.delta, end="", flush=True)
print()

sentence = "Make this JSON: Vera is 30 years old and lives in Oslo."
typed = model.as_structured_llm(Person).chat([ChatMessage(role="user", content=sentence)])
print(typed.raw)
