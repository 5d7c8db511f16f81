"""Asks the engine for a completion and, where the model sees, for one about an image; fails if there is none."""

import json
import sys
import urllib.request

url, model, sees, seconds = sys.argv[1], sys.argv[2], sys.argv[3] == "true", float(sys.argv[4])

# A red square of 32 by 32 pixels.
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR42u3NQQ0AAAgEoNP+nTWFDzcoQE"
    "1udQQCgUAgEAgEAsGTYAGjxAE/G/Q2tQAAAABJRU5ErkJggg=="
)


def ask(content):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 16}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        answer = json.load(reply)
    assert answer["usage"]["completion_tokens"] > 0, answer
    print(f"ok: {answer['choices'][0]['message']['content']!r}")


ask("Say hello.")
if sees:
    ask([{"type": "image_url", "image_url": {"url": IMAGE}}, {"type": "text", "text": "Which colour is it?"}])
