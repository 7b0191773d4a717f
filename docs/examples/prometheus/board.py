"""
Write ``board.json``, a board for Grafana: ``python docs/examples/prometheus/board.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Title, unit of Grafana, and queries with their legends; a row of the board has three.
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Live sessions", "short", (("sum by (phase) (socksproxy_sessions{S})", "{{phase}}"),)),
    (
        "Bytes per second",
        "Bps",
        (("sum by (direction) (rate(socksproxy_bytes_total{S}[$__rate_interval]))", "{{direction}}"),),
    ),
    (
        "New connections per second",
        "cps",
        (("sum by (listener) (rate(socksproxy_connections_total{S}[$__rate_interval]))", "{{listener}}"),),
    ),
    (
        "Sessions by their end",
        "short",
        (("sum by (reason) (increase(socksproxy_sessions_ended_total{S}[$__rate_interval]))", "{{reason}}"),),
    ),
    (
        "Replies",
        "short",
        (
            (
                "sum by (version, code) (increase(socksproxy_replies_total{S}[$__rate_interval]))",
                "{{version}}: {{code}}",
            ),
        ),
    ),
    (
        "Time to connect",
        "s",
        tuple(
            (
                (
                    f"histogram_quantile({part}, sum by (le) "
                    "(rate(socksproxy_connect_seconds_bucket{S}[$__rate_interval])))"
                ),
                f"p{part * 100:g}",
            )
            for part in (0.5, 0.95, 0.99)
        ),
    ),
    (
        "Refused by limits",
        "short",
        (
            (
                "sum by (scope, limit) (increase(socksproxy_limited_total{S}[$__rate_interval]))",
                "{{scope}}: {{limit}}",
            ),
        ),
    ),
    (
        "Rules",
        "short",
        (
            (
                (
                    "topk(10, sum by (rule, decision) "
                    "(increase(socksproxy_rule_decisions_total{S}[$__rate_interval])))"
                ),
                "{{rule}}: {{decision}}",
            ),
        ),
    ),
    (
        "Logins",
        "short",
        (
            (
                "sum by (method, result) (increase(socksproxy_authentications_total{S}[$__rate_interval]))",
                "{{method}}: {{result}}",
            ),
        ),
    ),
    (
        "Processor time of workers",
        "percentunit",
        (("rate(socksproxy_worker_cpu_seconds_total{S}[$__rate_interval])", "{{instance}} {{worker}}"),),
    ),
    ("Lag of reactors", "s", (("socksproxy_reactor_lag_seconds{S}", "{{instance}} {{worker}}"),)),
    (
        "Datagrams per second",
        "pps",
        (
            ("sum by (direction) (rate(socksproxy_datagrams_total{S}[$__rate_interval]))", "{{direction}}"),
            (
                "sum by (reason) (rate(socksproxy_datagrams_dropped_total{S}[$__rate_interval]))",
                "dropped: {{reason}}",
            ),
        ),
    ),
    (
        "Upstreams: failures",
        "short",
        (
            (
                (
                    "sum by (upstream, whose) "
                    "(increase(socksproxy_upstream_failures_total{S}[$__rate_interval]))"
                ),
                "{{upstream}}: {{whose}}",
            ),
        ),
    ),
    (
        "Upstreams: sessions",
        "short",
        (("sum by (upstream) (socksproxy_upstream_sessions{S})", "{{upstream}}"),),
    ),
    (
        "Descriptors in use",
        "percentunit",
        (
            (
                (
                    'socksproxy_descriptors{kind="open",instance=~"$instance"} / ignoring (kind) '
                    'socksproxy_descriptors{kind="limit",instance=~"$instance"}'
                ),
                "{{instance}} {{worker}}",
            ),
        ),
    ),
)

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _IN_A_ROW = 8, 8, 3


def board() -> dict[str, Any]:
    """The board, as Grafana reads it."""
    return {
        "title": "socksproxy",
        "uid": "socksproxy",
        "tags": ["socksproxy"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "label": "Server",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": "label_values(socksproxy_build_info, instance)",
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                },
            ]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    row, column = divmod(number, _IN_A_ROW)
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query.replace("{S}", '{instance=~"$instance"}'),
                "legendFormat": legend,
            }
            for place, (query, legend) in enumerate(queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(board(), indent=2) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "board.json").write_text(text(), "utf-8")
