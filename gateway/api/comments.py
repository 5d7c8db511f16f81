"""Comments on a stream where nothing comes: no proxy shall take a long prefill for a dead connection."""

from __future__ import annotations

import asyncio

from gateway.api.call import Call

#: A line that says nothing, https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
COMMENT = b": keep-alive\n\n"


class Comments:
    """Writes a comment whenever nothing was sent for `seconds`; where the reply has not begun, its head first."""

    def __init__(self, call: Call, seconds: float, headers: bytes) -> None:
        self._call = call
        self._headers = headers
        # Two looks in the time: silence is noticed before it is over.
        self._pause = seconds / 2
        self._arm()

    def stop(self) -> None:
        """Writes no more."""
        self._timer.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        call = self._call
        if call.left or call.response_complete:
            return
        if call.silent and not call.blocked:
            if not call.begun:
                call.begin(200, self._headers)
            call.write(COMMENT)
        call.silent = True
        self._arm()
