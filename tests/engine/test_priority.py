"""An engine of our preset works on urgent requests first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.engine.test_server import chat, running, start_up, until

pytestmark = [pytest.mark.engine, pytest.mark.extended, pytest.mark.timeout(400)]


def test_urgent_request_overtakes_those_that_wait(model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path, "--max-num-seqs", "1", "--max-model-len", "4096") as engine:
        start_up(engine)
        done: list[int] = []

        def ask(rank: int, tokens: int) -> None:
            body = chat("Hello", max_tokens=tokens, ignore_eos=True, priority=rank)
            with engine.client() as client:
                assert client.post("/v1/chat/completions", json=body).status_code == 200
            done.append(rank)

        threads = [threading.Thread(target=ask, args=(0, 3000))]
        threads += [threading.Thread(target=ask, args=(rank, 20)) for rank in (7, 8, 9, -1)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        until(lambda: len(done) == len(threads), 120, engine)
        for thread in threads:
            thread.join()

    # The first was at work alone; with a better rank the last may even have taken its place in the middle.
    assert done.index(-1) <= 1
    assert [rank for rank in done if rank > 0] == [7, 8, 9]
