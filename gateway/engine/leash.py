"""Ends this process when the one that started it is gone, however that one ended.

The parent holds the other end of our standard input and never writes to it. The kernel closes it even when the parent
gets SIGKILL, and a thread here sees that. (PR_SET_PDEATHSIG would follow the parent's thread, and spare grandchildren
such as vLLM's EngineCore.)
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def hold(signum: signal.Signals) -> None:
    """From now on, the end of standard input sends `signum` to this process's whole group.

    The process should lead its own group (`start_new_session=True`), or it takes its parent's along.
    """
    threading.Thread(target=_wait, args=(sys.stdin.fileno(), signum), name="leash", daemon=True).start()


def _wait(descriptor: int, signum: signal.Signals) -> None:
    while os.read(descriptor, 1):
        pass
    os.killpg(0, signum)
