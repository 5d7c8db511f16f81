"""The Grafana dashboards of the gateway chart, described in Python: `python -m deploy.dashboards` writes the JSON."""
