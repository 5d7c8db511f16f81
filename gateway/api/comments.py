"""Comments on a stream where nothing comes: no proxy shall take a long prefill for a dead connection."""

from __future__ import annotations

import asyncio

from gateway.api.call import Call
from gateway.api.observation import Observation

#: A line that says nothing, https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
COMMENT = b": keep-alive\n\n"


class Comments:
    """Writes a comment whenever nothing was sent for `seconds`; where the reply has not begun, its head first."""

    def __init__(self, call: Call, seen: Observation, seconds: float, headers: bytes) -> None:
        self._call = call
        self._seen = seen
        self._headers = headers
        # Two looks in the time: silence is noticed before it is over.
        self._pause = seconds / 2
        self._events = -1
        self._arm()

    def stop(self) -> None:
        """Writes no more."""
        self._timer.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        call, events = self._call, self._seen.events
        if call.left or call.response_complete:
            return
        if events == self._events and not call.flow.write_paused:
            if not call.begun:
                call.begin(200, self._headers)
            call.write(COMMENT)
        self._events = events
        self._arm()
