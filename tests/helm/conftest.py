"""Fixtures that the tests of all charts share."""

from __future__ import annotations

import pytest

from tests.helm.rendering import VERSIONS


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The oldest and the newest supported version of Kubernetes, one after the other."""
    return str(request.param)
