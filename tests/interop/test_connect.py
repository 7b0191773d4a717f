"""``socksproxy connect`` as a program, and as the ProxyCommand of others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.origin import Origin
from tests.support.processes import Program
from tests.support.programs import PATIENCE, require, run

from .conftest import Proxy
from .test_programs import UPLOAD, expected

CONNECT = [sys.executable, "-m", "socksproxy", "connect"]


@pytest.mark.parametrize("way", [["-4"], ["-4a"], ["-5"], []])
def test_the_answer_comes_after_our_end(proxy: Proxy, answers: Origin, way: list[str]) -> None:
    line = [*CONNECT, *way, "--proxy", f"127.0.0.1:{proxy.port}", "localhost", str(answers.port)]
    done = run(line, data=UPLOAD)
    assert (done.stdout, done.stderr, done.returncode) == (expected(), b"", 0)


def test_files(proxy: Proxy, answers: Origin, tmp_path: Path) -> None:
    """Standard input and output are no pipes."""
    (tmp_path / "in").write_bytes(UPLOAD)
    line = [*CONNECT, "--proxy", f"127.0.0.1:{proxy.port}", "127.0.0.1", str(answers.port)]
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        assert subprocess.run(line, stdin=source, stdout=target, timeout=PATIENCE).returncode == 0
    assert (tmp_path / "out").read_bytes() == expected()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_closed_standard_files(proxy: Proxy, answers: Origin, closed: str) -> None:
    """No socket takes their place: there is nothing to send, and the answer goes nowhere."""
    line = [*CONNECT, "--proxy", f"127.0.0.1:{proxy.port}", "127.0.0.1", str(answers.port)]
    done = run(["bash", "-c", f'"$@" {closed}', "bash", *line], data=b"")
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_standard_output_that_is_full(proxy: Proxy, answers: Origin) -> None:
    """What fails is not the connection."""
    line = [*CONNECT, "--proxy", f"127.0.0.1:{proxy.port}", "127.0.0.1", str(answers.port)]
    done = run(["bash", "-c", '"$@" >/dev/full', "bash", *line], data=UPLOAD)
    assert (done.stderr, done.returncode) == (b"socksproxy: standard output: no space left on device\n", 1)


@pytest.mark.slow
def test_ssh(proxy: Proxy, tmp_path: Path) -> None:
    """The ProxyCommand of the documentation, with a server that inetd would have started."""
    ssh, sshd, keygen = require("ssh"), require("sshd"), require("ssh-keygen")
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        words = f"{' '.join(CONNECT)} --proxy 127.0.0.1:{proxy.port} %h %p"
        line = [ssh, "-F", "none", "-i", str(tmp_path / "user"), "-p", str(listening.getsockname()[1])]
        for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"):
            line += ["-o", option]
        line += ["-o", f"ProxyCommand={words}", "127.0.0.1", "cat; exit 7"]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            listening.settimeout(PATIENCE)
            link, _ = listening.accept()
            with link:
                server = subprocess.Popen(
                    [sshd, "-i", "-e", "-f", str(config)],
                    stdin=link.fileno(),
                    stdout=link.fileno(),
                    stderr=subprocess.PIPE,
                )
            said, _ = client.communicate(UPLOAD, timeout=PATIENCE)
            _, complaints = server.communicate(timeout=PATIENCE)
    if b"account is locked" in complaints or b"not allowed because" in complaints:
        pytest.skip("sshd does not let this user in")
    assert (said, client.returncode) == (UPLOAD, 7), complaints


def test_statuses(own_names: Proxy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        for arguments, status in (
            (["--proxy", f"127.0.0.1:{own_names.port}", "127.0.0.1", port], 15),
            (["--proxy", f"127.0.0.1:{own_names.port}", "nowhere.test", "80"], 14),
            (["--proxy", f"127.0.0.1:{port}", "127.0.0.1", port], 3),
            (["--proxy", "socks5://me:secret@127.0.0.1", "127.0.0.1", port], 1),
            (["--timeout", "0", "127.0.0.1", port], 1),
            (["127.0.0.1"], 2),
        ):
            done = run([*CONNECT, *arguments])
            assert done.returncode == status, done.stderr
            assert done.stderr.startswith((b"socksproxy: ", b"usage: "))


def test_listen(proxy: Proxy, tmp_path: Path) -> None:
    """BIND: standard error tells where the proxy listens."""
    line = [*CONNECT, "--listen", "--proxy", f"127.0.0.1:{proxy.port}", "127.0.0.1", "0"]
    program = Program(line, tmp_path)
    found = program.wait_for(r"listening on 127\.0\.0\.1:(\d+)")
    with socket.create_connection(("127.0.0.1", int(found[1])), PATIENCE) as peer:
        peer.sendall(b"from the peer")
        assert peer.recv(1) == b""  # its standard input has ended
    assert program.wait() == 0
    assert program.output.endswith("from the peer")
    program.stop()


def test_a_reader_that_has_enough(proxy: Proxy, echoes: Origin) -> None:
    line = [*CONNECT, "--proxy", f"127.0.0.1:{proxy.port}", "127.0.0.1", str(echoes.port)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100) == b"hello"
        process.stdout.close()
        process.stdin.write(b"more")
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
