"""What docs/discovery.md shows can be pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gateway.settings.engines import EngineSettings

PAGE = (Path(__file__).parents[3] / "docs" / "discovery.md").read_text()
BLOCKS = [list(yaml.safe_load_all(block)) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("document", [block[0] for block in BLOCKS if "engines" in block[0]])
def test_configurations_are_valid(document: dict[str, dict[str, object]]) -> None:
    assert [EngineSettings.model_validate(each) for each in document["engines"].values()]
    assert document.keys() == {"engines"}


def test_role_lets_the_gateway_list_and_watch() -> None:
    [[role, binding]] = [block for block in BLOCKS if len(block) > 1]

    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
