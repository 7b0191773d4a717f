"""The examples for containers, Kubernetes and HAProxy: what they say fits together, and to the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options
from socksproxy.cli import main
from socksproxy.ctl.command import parsed

from .support.docs import DOCS, blocks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
#: A hash that costs little.
HASH = "$2y$04$sjS4Fd6DIVw3yO1.FqKOMuQB4sRgqnPWTXW0uUuFj8f5Wd2FCOp0m"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKS_PASSWORD", HASH)


def ctl_commands() -> list[str]:
    """The calls of ``socksproxy ctl`` that ``docs/operations.rst`` shows."""
    lines = "\n".join(blocks(DOCS / "operations.rst", ".. code-block:: console")).splitlines()
    return [line.partition(" socksproxy ")[2] for line in lines if " socksproxy ctl " in line]


@pytest.mark.parametrize(
    "command", [*ctl_commands(), "ctl health --live", "ctl limit bob", "ctl unlock 192.0.2.7"]
)
def test_commands_of_operations(command: str) -> None:
    """What the page has operators type is taken."""
    assert parsed(shlex.split(command)[1:]).subcommand


# The container.


def instructions() -> list[tuple[str, str]]:
    """The words of the Containerfile, each with its rest."""
    text = (EXAMPLES / "container" / "Containerfile").read_text("utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found = []
    for line in filter(None, lines):
        word, _, rest = line.partition(" ")
        found.append((word, rest.strip()))
    return found


def last(word: str) -> str:
    return [rest for each, rest in instructions() if each == word][-1]


def test_container_file() -> None:
    """Only words that there are; what is copied is in the source; what runs is no root."""
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {word for word, _ in instructions()} == known | {"ENTRYPOINT"}
    stages = [rest.split(" AS ")[-1] for word, rest in instructions() if word == "FROM"]
    for word, rest in instructions():
        if word == "COPY":
            origin = re.match(r"--from=(\S+) ", rest)
            assert origin[1] in stages if origin else (ROOT / rest.split()[0]).exists()
    words = [word for word, _ in instructions()]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))


def test_container_is_checked() -> None:
    """The health of the container is that of the server."""
    options, _, command = last("HEALTHCHECK").partition(" CMD ")
    assert json.loads(command) == ["socksproxy", "ctl", "health"]
    assert {option.partition("=")[0] for option in options.split()} == {
        "--interval",
        "--timeout",
        "--start-period",
        "--retries",
    }


def test_container_starts() -> None:
    """The command is the program's, its file has no mistake, and it serves what the image exposes."""
    program, *words = json.loads(last("ENTRYPOINT"))
    file = EXAMPLES / "container" / "socksproxy.toml"
    there = words[-1]
    assert f"COPY docs/examples/container/socksproxy.toml {there}" in " ".join(
        f"{word} {rest}" for word, rest in instructions()
    )
    assert (program, words[:3]) == ("twistd", ["--nodaemon", "--pidfile=", "socks"])
    options = Options(MemoryReactorClock())
    options.parseOptions([*words[3:-1], str(file), "--advertise", "203.0.113.5"])
    (listener,) = options.plan.listeners
    port = listener.description.split(":")[1]
    assert last("EXPOSE").split() == [f"{port}/tcp", f"{options.plan.settings.udp.port}/udp"]
    assert options.plan.guarded
    assert options.plan.admin is not None
    (admin,) = options.plan.admin.listeners
    directory = Path(admin.endpoint.split(":")[1]).parent
    # Where ctl looks for it.
    assert str(directory) == last("WORKDIR") == "/run/socksproxy"


def test_container_needs_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the variable the container ends with a line, and is no open proxy."""
    monkeypatch.delenv("SOCKS_PASSWORD")
    assert main(["check", str(EXAMPLES / "container" / "socksproxy.toml")]) == 1
    assert "SOCKS_PASSWORD" in capsys.readouterr().err


# Kubernetes.

#: The keys that may be where the manifests have keys; ``*`` is any key, and a list is of such.
_PROBE = {
    "exec": {"command": [str]},
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
_META = {"name": str, "labels": {"*": str}}
_CONTAINER = {
    "name": str,
    "image": str,
    "env": [{"name": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "startupProbe": _PROBE,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
    "resources": {"requests": {"*": str}, "limits": {"*": str}},
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
    },
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
_POD = {
    "automountServiceAccountToken": bool,
    "terminationGracePeriodSeconds": int,
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "seccompProfile": {"type": str},
    },
    "containers": [_CONTAINER],
    "volumes": [{"name": str, "configMap": {"name": str}, "emptyDir": {"medium": str}}],
}
_SELECTOR = {"matchLabels": {"*": str}}
_KINDS: dict[tuple[str, str], dict[str, Any]] = {
    ("v1", "ConfigMap"): {"data": {"*": str}},
    ("apps/v1", "Deployment"): {
        "spec": {
            "replicas": int,
            "selector": _SELECTOR,
            "strategy": {"rollingUpdate": {"maxUnavailable": int, "maxSurge": int}},
            "template": {"metadata": _META, "spec": _POD},
        }
    },
    ("v1", "Service"): {
        "spec": {
            "selector": {"*": str},
            "ports": [{"name": str, "port": int, "targetPort": str, "protocol": str}],
        }
    },
    ("policy/v1", "PodDisruptionBudget"): {"spec": {"maxUnavailable": int, "selector": _SELECTOR}},
}


def strange(value: Any, shape: Any, where: str = "") -> list[str]:
    """Where *value* has not the *shape*."""
    if isinstance(shape, type):
        return [] if type(value) is shape else [where]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [where]
        return [each for item in value for each in strange(item, shape[0], f"{where}[]")]
    if not isinstance(value, dict):
        return [where]
    found = []
    for key, item in value.items():
        inner = shape.get(key, shape.get("*"))
        found += [f"{where}.{key}"] if inner is None else strange(item, inner, f"{where}.{key}")
    return found


def manifests() -> dict[str, Any]:
    """The parts of the example, by their kinds."""
    text = (EXAMPLES / "kubernetes" / "socksproxy.yaml").read_text("utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pod() -> Any:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def test_manifests() -> None:
    """Every kind, key and type is Kubernetes' own, as far as they are known here."""
    found = manifests()
    assert len(found) == len(_KINDS)
    for document in found.values():
        shape = _KINDS[document["apiVersion"], document["kind"]]
        assert strange(document, {"apiVersion": str, "kind": str, "metadata": _META, **shape}) == []


def test_parts_fit() -> None:
    """What has to have the same name in two places has."""
    found = manifests()
    deployment, service = found["Deployment"]["spec"], found["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        service["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    (container,) = pod()["containers"]
    assert [port["targetPort"] for port in service["ports"]] == [port["name"] for port in container["ports"]]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod()["volumes"]}
    # Those of the image.
    places = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert places == [str(Path(json.loads(last("ENTRYPOINT"))[-1]).parent), last("WORKDIR")]
    assert f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}" == last("USER")


def test_drain_in_kubernetes(tmp_path: Path) -> None:
    """The time of a pod is enough to drain, and a pod that drains is not ready, and lives."""
    text = manifests()["ConfigMap"]["data"]["socksproxy.toml"]
    file = tmp_path / "socksproxy.toml"
    file.write_text(text, "utf-8")
    assert main(["check", str(file)]) == 0
    document = tomllib.loads(text)
    (container,) = pod()["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    parsed(command[2:])
    assert [command[:3], command[4:]] == [["socksproxy", "ctl", "drain"], ["--wait"]]
    drain = max(int(command[3]), document["workers"]["drain"])
    assert pod()["terminationGracePeriodSeconds"] > document["admin"]["notice"] + drain
    health = ["socksproxy", "ctl", "health"]
    for probe, command in (
        ("startupProbe", health),
        ("readinessProbe", health),
        ("livenessProbe", [*health, "--live"]),
    ):
        assert container[probe]["exec"]["command"] == command
        assert parsed(command[2:])
    (port,) = container["ports"]
    assert document["listeners"]["listen"] == [f"tcp:{port['containerPort']}:interface=0.0.0.0"]


# HAProxy.


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_haproxy() -> None:
    """HAProxy has nothing to say against its file."""
    file = EXAMPLES / "haproxy" / "haproxy.cfg"
    checked = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_proxies_behind_haproxy(tmp_path: Path) -> None:
    """The file of each proxy, which the example has at its head, has no mistake; the ports are the same."""
    text = (EXAMPLES / "haproxy" / "haproxy.cfg").read_text("utf-8")
    lines = re.findall(r"^#     (.*)$", text, re.MULTILINE)
    file = tmp_path / "socks.toml"
    file.write_text("\n".join(lines).replace("192.0.2.1:", "127.0.0.1:").replace('192.0.2.1"', '127.0.0.1"'))
    assert main(["check", str(file)]) == 0
    document = tomllib.loads("\n".join(lines))
    assert f"agent-port {document['admin']['agent'].split(':')[1]} " in text
    assert f" 192.0.2.1:{document['listeners']['listen'][0].split(':')[2]}\n" in text
    assert shlex.split(text.splitlines()[-1])[:2] == ["server", "two"]
