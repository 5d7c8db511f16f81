"""Waits until the download Job has left its mark in the cache."""

import sys
import time
from pathlib import Path

mark = Path(sys.argv[1])
while not mark.exists():
    print(f"waiting for the download Job, which leaves {mark}", flush=True)
    for _ in range(30):
        time.sleep(1)
        if mark.exists():
            break
