"""Writes the dashboards into the gateway chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.dashboards.engine import ENGINE
from deploy.dashboards.gateway import GATEWAY
from deploy.dashboards.gpus import GPUS_BOARD
from deploy.dashboards.grafana import Dashboard, render
from deploy.dashboards.overview import OVERVIEW
from deploy.dashboards.tenants import TENANTS

FOLDER = Path(__file__).parents[2] / "helm" / "gateway" / "dashboards"

#: By the name of their file.
DASHBOARDS: Mapping[str, Dashboard] = {
    "overview": OVERVIEW,
    "gateway": GATEWAY,
    "engine": ENGINE,
    "gpus": GPUS_BOARD,
    "tenants": TENANTS,
}


def write(folder: Path) -> None:
    """Writes one file for each dashboard."""
    folder.mkdir(exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(render(dashboard))


if __name__ == "__main__":
    write(FOLDER)
