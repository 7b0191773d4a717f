#!/usr/bin/env python3
"""
What SOCKS servers do rightly: ``socksproxy probe`` against this one and others, as a page of the docs.

    python benchmarks/conformance.py
    python benchmarks/conformance.py --servers "socksproxy,danted" --output /tmp

It writes ``docs/comparison-results.rst``, or a file of this name in the directory of ``--output``.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import peers
from paths import DOCS
from peers import Peer, which
from processes import CannotStart, Server
from report import HEADER, fields, listing

_CELLS = {"pass": "yes", "fail": "**no**", "not served": "not served", "not run": "not run"}
_PATIENCE = 40
#: The checks mostly wait.
_AT_ONCE = 4
#: Tor looks for other Tors here, and finds none.
_NO_NETWORK = "UseBridges 1\nBridge 127.0.0.1:9\nLog err stderr\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the servers and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", metavar="A,B", help="the names of those to check [all that are here]")
    parser.add_argument("--output", metavar="DIRECTORY", type=Path, default=DOCS, help="where the page goes")
    options = parser.parse_args(arguments)
    servers = _servers()
    if options.servers is not None:
        wanted = options.servers.split(",")
        servers = [server for server in servers if server.name in wanted]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        results = list(threads.map(_checked, servers))
    found = {server.name: checks for server, checks in zip(servers, results, strict=True) if checks}
    page = options.output / "comparison-results.rst"
    page.write_text(_page([server for server in servers if server.name in found], found), "utf-8")
    return 0


def _servers() -> list[Peer]:
    """This server and those on the machine."""
    others, missing = peers.find(())
    for line in missing:
        print(line, file=sys.stderr)
    more = (
        Peer("v2ray", which("v2ray") or "", _v2ray, _package("v2ray")),
        Peer("ssh -D", which("sshd") or "", _ssh, _package("openssh-client")),
        Peer("Tor", which("tor") or "", _tor, _package("tor")),
    )
    return [peers.ours(), *others, *(peer for peer in more if peer.binary)]


def _package(name: str) -> str:
    asked = ["dpkg-query", "--show", "--showformat=${Version}", name]
    try:
        version = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except OSError:
        version = ""
    return f"Debian's {version}" if version else "version not told"


def _v2ray(binary: str, port: int, directory: Path) -> list[str]:
    settings = {"auth": "noauth", "udp": True, "ip": "127.0.0.1"}
    inbound = {"listen": "127.0.0.1", "port": port, "protocol": "socks", "settings": settings}
    config = {"inbounds": [inbound], "outbounds": [{"protocol": "freedom"}]}
    path = directory / "v2ray.json"
    path.write_text(json.dumps(config), "utf-8")
    return [binary, "-config", str(path)]


def _ssh(binary: str, port: int, directory: Path) -> list[str]:
    """An ssh that starts an sshd of its own, which takes its key."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
        )
    config = directory / "sshd_config"
    config.write_text(
        f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\nStrictModes no\nUsePAM no\n",
        "utf-8",
    )
    os.makedirs("/run/sshd", exist_ok=True)
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={directory}/known",
        f"ProxyCommand={binary} -i -f {config}",
    ]
    return [
        "ssh",
        *(word for option in options for word in ("-o", option)),
        *("-i", str(directory / "user"), "-N", "-D", f"127.0.0.1:{port}", f"{getpass.getuser()}@loopback"),
    ]


def _tor(binary: str, port: int, directory: Path) -> list[str]:
    configuration = directory / "torrc"
    configuration.write_text(
        f"SocksPort 127.0.0.1:{port}\nDataDirectory {directory}/tor\n{_NO_NETWORK}", "utf-8"
    )
    return [binary, "-f", str(configuration)]


def _checked(peer: Peer) -> list[dict[str, str]]:
    """What the probe says of *peer*; nothing where *peer* does not start."""
    try:
        return _probed(peer)
    except CannotStart as problem:
        print(f"{peer.name} does not start: {problem}", file=sys.stderr)
        return []


def _probed(peer: Peer) -> list[dict[str, str]]:
    with Server(lambda port, directory: peer.command(peer.binary, port, directory)) as server:
        asked = [
            sys.executable,
            "-m",
            "socksproxy",
            "probe",
            f"127.0.0.1:{server.port}",
            "--json",
            "--no-figures",
        ]
        done = subprocess.run(
            [*asked, "--patience", str(_PATIENCE)], capture_output=True, text=True, check=False
        )
    if not done.stdout:
        raise CannotStart(done.stderr.strip())
    checks: list[dict[str, str]] = json.loads(done.stdout)["checks"]
    return checks


def _page(servers: Sequence[Peer], found: dict[str, list[dict[str, str]]]) -> str:
    facts = {
        "Date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "Command": "``python benchmarks/conformance.py``",
        "Servers": "; ".join(f"{server.name} {server.version}" for server in servers),
    }
    return "\n".join([HEADER, fields(facts), _table(servers, found), *_faults(servers, found)])


def _table(servers: Sequence[Peer], found: dict[str, list[dict[str, str]]]) -> str:
    columns = [found[server.name] for server in servers]
    rows = [
        [f"``{checks[0]['id']}``", *(_CELLS[check["verdict"]] for check in checks)]
        for checks in zip(*columns, strict=True)
        if not checks[0]["id"].startswith("login.")
    ]
    return listing("What each server does", ["Check", *(server.name for server in servers)], rows)


def _faults(servers: Sequence[Peer], found: dict[str, list[dict[str, str]]]) -> list[str]:
    lines = ["What was found where a check failed:", ""]
    for server in servers:
        faults = [check for check in found[server.name] if check["verdict"] == "fail"]
        if faults:
            lines += [
                server.name,
                *(f"    * ``{check['id']}``: {_escaped(check['found'])}" for check in faults),
                "",
            ]
    return lines


def _escaped(text: Any) -> str:
    return str(text).replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`")


if __name__ == "__main__":
    sys.exit(main())
