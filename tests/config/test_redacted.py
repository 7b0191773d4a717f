"""The configuration without secrets: see :mod:`socksproxy.config.redacted`."""

from __future__ import annotations

import json

from socksproxy.config.redacted import arguments_without_secrets, without_secrets

_SECRET = "hunter2"


def test_document() -> None:
    """No secret is shown, wherever the file may have one; all else is."""
    document = {
        "authentication": {"auth": [f"memory:bob:{_SECRET}", "anonymous"]},
        "users": {"bob": {"password": _SECRET, "groups": ["a"]}},
        "upstreams": {"one": {"login": {"user": "me", "password": _SECRET}, "address": "x:1"}},
        "shared": {"url": f"rediss://user:{_SECRET}@store:6379/0", "cluster-secret": _SECRET},
        "helpers": {"judge": {"command": ["/bin/judge", "--key", _SECRET], "children": 5}},
        "rule": [{"name": "web", "ports": [80], "token": _SECRET}],
        "limits": {"daily": "1 GB", "max-sessions": 7, "flag": True},
    }
    shown = without_secrets(document)
    assert _SECRET not in json.dumps(shown)
    assert shown["limits"] == document["limits"]
    assert shown["rule"][0]["ports"] == [80]
    assert shown["shared"]["url"] == "rediss://...@store:6379/0"
    assert shown["authentication"]["auth"] == ["memory:...", "anonymous"]
    assert shown["users"]["bob"]["groups"] == ["a"]
    assert shown["helpers"]["judge"] == {
        "command": ["/bin/judge", "(not shown)", "(not shown)"],
        "children": 5,
    }


def test_arguments() -> None:
    given = [
        "--auth",
        f"memory:bob:{_SECRET}",
        f"--auth=memory:eve:{_SECRET}",
        "-p",
        "0",
        "--auth",
        "anonymous",
    ]
    shown = arguments_without_secrets(given)
    assert shown == ["--auth", "memory:...", "--auth=memory:...", "-p", "0", "--auth", "anonymous"]
