"""The API without an SDK: a streamed chat and a refusal. `pip install httpx`, then `python plain_httpx.py`."""
# ruff: noqa: T201 - an example shows what it gets

from __future__ import annotations

import json
import os

import httpx

gateway = httpx.Client(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    headers={"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'any')}"},
    # The first token of a long prompt may take its time; between two tokens no engine is silent for long.
    timeout=httpx.Timeout(10, read=120),
)

request = {
    "model": "gemma",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 32,
    "stream": True,
    "stream_options": {"include_usage": True},
}
with gateway.stream("POST", "/chat/completions", json=request) as answer:
    answer.raise_for_status()
    for line in answer.iter_lines():
        data = line.removeprefix("data: ")
        if line == data or data == "[DONE]":
            continue  # A blank line between events, a comment that keeps the connection open, or the end.
        event = json.loads(data)
        if "error" in event:
            raise RuntimeError(event["error"]["message"])
        for choice in event["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
        if event.get("usage"):
            print(f"\n{event['usage']['completion_tokens']} tokens")

refused = gateway.post("/chat/completions", json={**request, "messages": "Hello!"})
print(refused.status_code, refused.json()["error"]["message"], refused.headers["x-request-id"])
