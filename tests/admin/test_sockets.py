"""The file of an admin socket: see :mod:`socksproxy.admin.sockets`."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from socksproxy.admin.sockets import SocketFile, listen_at


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Watched:
    """``socket.socket``, with a look at the file of a Unix socket after each step."""

    modes: list[int]

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modes = modes = []

        class Socket(socket.socket):
            def bind(self, address: Any) -> None:
                super().bind(address)
                modes.append(mode_of(path))

            def listen(self, backlog: int = 0) -> None:
                modes.append(mode_of(path))
                super().listen(backlog)

        monkeypatch.setattr(socket, "socket", Socket)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_never_open(mode: int, mask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has its mode from its first moment on, whatever the umask is."""
    path = tmp_path / "admin"
    watched = Watched(path, monkeypatch)
    before = os.umask(mask)
    try:
        with listen_at(str(path), mode):
            assert mode_of(path) == mode
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert watched.modes == [mode, mode]


def test_stale(tmp_path: Path) -> None:
    """What a killed server has left is no obstacle; a server that runs is."""
    path = tmp_path / "admin"
    listen_at(str(path), 0o600).close()
    assert path.exists()
    with listen_at(str(path), 0o600), pytest.raises(OSError, match="another process"):
        listen_at(str(path), 0o600)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_no_socket(kind: str, tmp_path: Path) -> None:
    """A file of another kind is left alone, and so is what a link leads to."""
    path, other = tmp_path / "admin", tmp_path / "other"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        listen_at(str(other), 0o600).close()
        path.symlink_to(other)
    with pytest.raises(OSError, match="no socket"):
        listen_at(str(path), 0o600)
    assert path.exists()


def test_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes at the end, unless it is another server's by then."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "admin"
    with listen_at("admin", 0o600):
        file = SocketFile("admin")
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()
    file.remove()
    with listen_at(str(path), 0o600):
        file.remove()
    assert path.exists()
