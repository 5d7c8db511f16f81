"""What `helm test` asks a gateway: a completion, an image where the model sees, and a key that is refused."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

BASE = os.environ["BASE_URL"]
KEY = os.environ.get("API_KEY", "")
DEADLINE = time.monotonic() + float(os.environ.get("TIMEOUT_SECONDS", "300"))

#: A red square of 64 by 64 points, as PNG.
SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATElEQVR42u3PQQ0AAAgEoNP+nTWCbzdoQE1+6wgICAgI"
    "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIHBZShQF/CY4YrwAAAABJRU5ErkJggg=="
)


def say(line: str) -> None:
    """Writes a line that `helm test --logs` shows."""
    sys.stdout.write(line + "\n")


def ask(path: str, key: str, body: object = None) -> tuple[int, dict]:
    """Status and JSON of an answer. Raises OSError where there is none."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(BASE + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=left()) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read() or b"{}")


def left() -> float:
    """Seconds that remain."""
    return max(1.0, DEADLINE - time.monotonic())


def wait(path: str, key: str, body: object = None) -> tuple[int, dict]:
    """As `ask`, again and again while the gateway or its engine starts, or is full."""
    while True:
        try:
            status, answer = ask(path, key, body)
        except OSError as fault:
            status, answer = 503, {"error": str(fault)}
        if status not in (429, 502, 503, 504) or time.monotonic() > DEADLINE:
            return status, answer
        time.sleep(2)


def expect(what: str, status: int, answer: dict, wanted: int = 200) -> None:
    """Ends with an error unless the status is the wanted one."""
    if status != wanted:
        sys.exit(f"{what}: {status} where {wanted} was expected: {json.dumps(answer)}")


def complete(what: str, model: str, content: object) -> None:
    """Has a message answered."""
    messages = [{"role": "user", "content": content}]
    status, answer = wait("/v1/chat/completions", KEY, {"model": model, "messages": messages, "max_tokens": 8})
    expect(what, status, answer)
    say(f"{what}: answered, {answer['usage']['completion_tokens']} tokens")


def choose(cards: list[dict]) -> dict:
    """The model to ask: the one that is named, else the first."""
    wanted = os.environ.get("MODEL") or (cards[0]["id"] if cards else "")
    found = [card for card in cards if card["id"] == wanted]
    if not found:
        sys.exit(f"the key may use no model {wanted!r}: set test.model to one of {[card['id'] for card in cards]}")
    return found[0]


def main() -> None:
    """All of it; ends with an error at the first fault."""
    status, answer = wait("/v1/models", "sk-gemma-0-wrong")
    expect("a wrong key", status, answer, 401)
    say("a wrong key: refused")
    if not KEY:
        say("no completion was tried: set test.keySecret to a Secret with a key")
        return
    status, answer = wait("/v1/models", KEY)
    expect("the list of models", status, answer)
    model = choose(answer["data"])
    complete("a completion", model["id"], "Say yes.")
    if "image" in model["modalities"]:
        image = {"type": "image_url", "image_url": {"url": SQUARE}}
        complete("an image", model["id"], [image, {"type": "text", "text": "What colour is it?"}])
    else:
        say(f"no image was tried: {model['id']} does not see")


main()
