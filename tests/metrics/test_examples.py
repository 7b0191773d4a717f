"""What ``docs/examples/prometheus`` has for Prometheus and Grafana."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from socksproxy.metrics.table import BY_NAME, METRICS, MetricKind

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "prometheus"
#: The names that samples have.
NAMES = {
    *BY_NAME,
    *(
        f"{metric.name}{ending}"
        for metric in METRICS
        if metric.kind is MetricKind.HISTOGRAM
        for ending in ("_bucket", "_count", "_sum")
    ),
}


def test_board() -> None:
    """The board is what the script writes, and Grafana can place its panels."""
    text = (EXAMPLES / "board.json").read_text("utf-8")
    script = runpy.run_path(str(EXAMPLES / "board.py"))
    assert text == script["text"]()
    board = json.loads(text)
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
    assert all(x + width <= 24 for x, _, width, _ in places)


def labels_of(name: str) -> set[str]:
    """The labels that the samples *name* have."""
    metric = BY_NAME.get(name) or BY_NAME[re.sub("_(bucket|count|sum)$", "", name)]
    return {"instance", "worker", "le", *metric.labels}


def test_names_and_labels() -> None:
    """The board and the alerts ask for nothing that there is not."""
    board = json.loads((EXAMPLES / "board.json").read_text("utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    alerts = (EXAMPLES / "alerts.yml").read_text("utf-8")
    queries += re.findall(r"expr: (?:>-\n\s+)?((?:.|\n)*?)\n\s+(?:for|labels):", alerts)
    assert len(queries) > 25
    for query in queries:
        names = re.findall(r"socksproxy_\w+", query)
        assert set(names) <= NAMES, query
        known = set().union(*map(labels_of, names), {"job"})
        for group in re.findall(r"\b(?:by|ignoring) \(([\w, ]+)\)", query):
            assert set(group.split(", ")) <= known, query


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool(command: tuple[str, ...]) -> None:
    """Prometheus's own tool takes the files, and each alert fires when it should."""
    done = subprocess.run(
        ["promtool", *command], cwd=EXAMPLES, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
