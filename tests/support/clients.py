"""SOCKS clients of other programs, as one call each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .programs import missing, require, run

HERE = Path(__file__).parent.parent / "interop"


def library(name: str) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        missing(f"the library {name}")


def node_client(proxy: int, version: int, host: str, port: int, message: str, *login: str) -> bytes:
    """What *message* is answered with through npm's ``socks``; *login* is a name, or that and a password."""
    # Not in apt-packages.txt: npm comes with hundreds of packages.
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here")
    if not (HERE / "node_modules" / "socks").is_dir():
        missing("npm's socks (npm install --prefix tests/interop)")
    arguments = [str(proxy), str(version), host, str(port), message, *login]
    done = run([node, str(HERE / "clients.mjs"), *arguments])
    print(done.stderr.decode())
    return done.stdout


def openbsd_nc() -> str:
    nc = require("nc.openbsd", "nc")
    usage = run([nc, "-h"])
    if b"-X proxy_protocol" not in usage.stdout + usage.stderr:
        missing("OpenBSD's nc")
    return nc
