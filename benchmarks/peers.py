"""The servers to compare: this one, and whichever of its peers are on the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import twisted

import socksproxy
from paths import ROOT

OURS = "socksproxy"

# By its function: where pip puts the script depends on how it was called.
_TWISTD = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
)

#: Looked at after PATH: servers live in sbin, and pip's scripts beside the interpreter.
_MORE = ("/usr/local/sbin", "/usr/sbin", "/sbin", str(Path(sys.executable).parent))

#: ``command(binary, port, directory)``: what starts a server; files that it wants are put into the directory.
Command = Callable[[str, int, Path], list[str]]


@dataclass(frozen=True)
class Peer:
    """
    A server that can be measured.

    :ivar name: as tables call it, and ``--peer`` too.
    :ivar binary: its program.
    :ivar command: see :data:`Command`.
    :ivar version: as it tells it.
    :ivar socks4: it does not speak SOCKS5.
    """

    name: str
    binary: str
    command: Command
    version: str
    socks4: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether this is the server that all is about."""
        return self.name == OURS


@dataclass(frozen=True)
class _Kind:
    """
    A server that might be there.

    :ivar program: as it is called on PATH.
    :ivar command: see :data:`Command`.
    :ivar ask: arguments with which it tells its version; none: it does not.
    """

    program: str
    command: Command
    ask: tuple[str, ...] = ()


def _written(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text, "utf-8")
    return str(path)


def _hev(binary: str, port: int, directory: Path) -> list[str]:
    text = (
        f"main:\n  workers: 1\n  port: {port}\n  listen-address: '127.0.0.1'\n"
        f"misc:\n  limit-nofile: {_descriptors()}\n"
    )
    return [binary, _written(directory, "hev.yml", text)]


def _3proxy(binary: str, port: int, directory: Path) -> list[str]:
    text = f"maxconn 10000\nauth none\nallow *\nsocks -p{port} -i127.0.0.1\n"
    return [binary, _written(directory, "3proxy.cfg", text)]


def _microsocks(binary: str, port: int, directory: Path) -> list[str]:
    return [binary, "-i", "127.0.0.1", "-p", str(port)]


def _danted(binary: str, port: int, directory: Path) -> list[str]:
    users = "user.privileged: root\nuser.unprivileged: nobody\n" if os.geteuid() == 0 else ""
    text = (
        f"logoutput: {directory}/danted.log\n"
        f"internal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n"
        f"clientmethod: none\nsocksmethod: none\n{users}"
        "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
        "socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
    )
    return [binary, "-f", _written(directory, "danted.conf", text)]


def _pproxy(binary: str, port: int, directory: Path) -> list[str]:
    return [binary, "-l", f"socks5://127.0.0.1:{port}"]


def _builtin(binary: str, port: int, directory: Path) -> list[str]:
    text = (
        "from twisted.application.service import Application\n"
        "from twisted.tap.socks import makeService\n"
        "application = Application('socks')\n"
        f"options = {{'interface': '127.0.0.1', 'port': {port}, 'log': None}}\n"
        "makeService(options).setServiceParent(application)\n"
    )
    return [*_TWISTD, "-y", _written(directory, "builtin.tac", text)]


def _ours(binary: str, port: int, directory: Path) -> list[str]:
    return [*_TWISTD, "socks", "--port", str(port)]


_KINDS = {
    "hev-socks5-server": _Kind("hev-socks5-server", _hev, ("--version",)),
    "3proxy": _Kind("3proxy", _3proxy, ("--version",)),
    "microsocks": _Kind("microsocks", _microsocks),
    "danted": _Kind("danted", _danted, ("-v",)),
    "pproxy": _Kind("pproxy", _pproxy, ("--version",)),
}

#: Twisted's own server, of the Twisted that runs this one.
BUILTIN = "Twisted's socks"

NAMES = (*_KINDS, BUILTIN)


def ours() -> Peer:
    """This server."""
    return Peer(OURS, sys.executable, _ours, f"{socksproxy.__version__}{_commit()}, {runtime()}")


def builtin() -> Peer:
    """Twisted's own server."""
    return Peer(BUILTIN, sys.executable, _builtin, runtime(), socks4=True)


def runtime() -> str:
    """The interpreter and Twisted."""
    return f"{platform.python_implementation()} {platform.python_version()}, Twisted {twisted.__version__}"


def find(named: Sequence[str], wanted: Sequence[str] | None = None) -> tuple[list[Peer], list[str]]:
    """
    The peers on this machine.

    :param named: ``NAME=BINARY`` for those that are not on PATH.
    :param wanted: the names of those to look for; None: all of them.
    :returns: the peers, and a line on each that is missing.
    :raises ValueError: for a name that nobody knows, or a binary that is not there.
    """
    given = dict(_given(text) for text in named)
    names = NAMES if wanted is None else wanted
    peers, lines = [], []
    for name in names:
        if name == BUILTIN:
            peers.append(builtin())
            continue
        if name not in _KINDS:
            raise ValueError(f"{name}: not one of {', '.join(NAMES)}")
        kind = _KINDS[name]
        binary = given.get(name) or which(kind.program)
        if binary is None:
            lines.append(f"{name} is not here: without it (--peer {name}=BINARY says where it is)")
            continue
        peers.append(Peer(name, binary, kind.command, _version(binary, kind.ask)))
    return peers, lines


def which(program: str) -> str | None:
    """The path of *program*, if it is here."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(_MORE))


def _given(text: str) -> tuple[str, str]:
    name, _, binary = text.partition("=")
    if name not in _KINDS:
        raise ValueError(f"--peer {text}: not NAME=BINARY with one of {', '.join(_KINDS)}")
    found = shutil.which(binary)
    if found is None:
        raise ValueError(f"--peer {text}: there is no such program")
    return name, str(Path(found).resolve())


def _version(binary: str, ask: Sequence[str]) -> str:
    """A version number, and a commit where one is told; or the Debian package's; or that it is not told."""
    if ask:
        said = _say(binary, *ask)
        found = re.search(r"\d+\.\d+(?:\.\d+)?(?: [0-9a-f]{7,12}\b)?", said)
        if found is not None:
            return found[0]
    # Where /usr is merged, a package may have its files in /bin and yet be found in /usr/bin.
    for path in (Path(binary).resolve(), Path("/", *Path(binary).resolve().parts[2:])):
        package = re.match(r"([\w.+-]+)(?::\w+)?: ", _say("dpkg-query", "--search", str(path)))
        if package is not None and package[1] != "dpkg-query":
            return "Debian's " + _say("dpkg-query", "--show", "--showformat=${Version}", package[1])
    return "version not told"


def _commit() -> str:
    """The commit of the checkout, if it is one."""
    found = re.fullmatch(r"[\w.-]+\n", _say("git", "-C", str(ROOT), "describe", "--always", "--dirty"))
    return f" ({found[0].strip()})" if found else ""


def _say(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr


def _descriptors() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
