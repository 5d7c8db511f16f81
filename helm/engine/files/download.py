"""Downloads a model from the hub, then leaves a mark that it is whole."""

import json
import sys
from pathlib import Path

from huggingface_hub import snapshot_download

wanted, mark = json.loads(sys.argv[1]), Path(sys.argv[2])
snapshot_download(wanted["model"], revision=wanted["revision"] or None, ignore_patterns=wanted["ignore"])
for model in wanted["also"]:
    snapshot_download(model, ignore_patterns=wanted["ignore"])
mark.parent.mkdir(parents=True, exist_ok=True)
mark.touch()
print(f"{wanted['model']} is in the cache")
