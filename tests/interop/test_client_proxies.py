"""Our client through real proxies of others. Numbers such as "e 24" are those of known faults."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from twisted.internet import error, ssl
from twisted.internet.protocol import DatagramProtocol, Factory

from socksproxy.client import Proxy, UsernamePassword, errors

from ..client.test_endpoints import Halves
from ..support.authority import SERVER, Authority
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.processes import TWISTD
from ..support.programs import missing, require
from ..support.proxy import Playing, closed_port, until
from ..support.scripted_proxy import Recorder, Recorders


class Started:
    """A running proxy. :ivar kind: its name; :ivar scheme: what it speaks; :ivar directory: of its files."""

    def __init__(
        self, kind: str, scheme: str, port: int, process: subprocess.Popen[bytes], directory: Path
    ) -> None:
        self.kind = kind
        self.scheme = scheme
        self.port = port
        self.process = process
        self.directory = directory
        self.proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{port}", timeout=20)


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def _danted(port: int, directory: Path) -> list[str]:
    text = (
        f"logoutput: {directory}/danted.log\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n"
        "clientmethod: none\nsocksmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n"
        "client pass { from: 0/0 to: 0/0 }\nsocks pass { from: 0/0 to: 0/0 }\n"
    )
    return [require("danted"), "-f", _written(directory / "danted.conf", text)]


def _microsocks(port: int, directory: Path) -> list[str]:
    return [require("microsocks"), "-i", "127.0.0.1", "-p", str(port)]


def _tor(port: int, directory: Path) -> list[str]:
    text = (
        f"SocksPort 127.0.0.1:{port} ExtendedErrors\nDataDirectory {directory}/tor\n"
        f"Log notice file {directory}/tor.log\n"
    )
    return [require("tor"), "-f", _written(directory / "torrc", text), "--quiet"]


def _squid(port: int, directory: Path) -> list[str]:
    text = (
        f"http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\npid_filename none\n"
        f"access_log none\ncache_log {directory}/squid.log\nshutdown_lifetime 0 seconds\n"
        "pinger_enable off\nnetdb_filename none\ndns_nameservers 127.0.0.1\n"
        "dns_timeout 1 seconds\n"
    )
    directory.chmod(0o777)
    return [require("squid"), "-N", "-f", _written(directory / "squid.conf", text)]


def _tinyproxy(port: int, directory: Path) -> list[str]:
    text = f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Critical\n"
    return [require("tinyproxy"), "-d", "-c", _written(directory / "tinyproxy.conf", text)]


def _ncat(port: int, directory: Path) -> list[str]:
    return [require("ncat"), "-lk", "--proxy-type", "http", "127.0.0.1", str(port)]


def _v2ray(port: int, directory: Path, protocol: str = "socks") -> list[str]:
    more = {"udp": True, "auth": "noauth", "ip": "127.0.0.1"} if protocol == "socks" else {}
    inbound = {"listen": "127.0.0.1", "port": port, "protocol": protocol, "settings": more}
    config = {"log": {"loglevel": "none"}, "inbounds": [inbound], "outbounds": [{"protocol": "freedom"}]}
    return [require("v2ray"), "-config", _written(directory / "v2ray.json", json.dumps(config))]


def _v2ray_http(port: int, directory: Path) -> list[str]:
    return _v2ray(port, directory, "http")


def _ours(port: int, directory: Path) -> list[str]:
    return [*TWISTD, "-n", "--pidfile=", "socks", "--port", str(port)]


def _ssh(port: int, directory: Path) -> list[str]:
    """ssh -D through sshd on loopback."""
    sshd, keygen, ssh = require("sshd"), require("ssh-keygen"), require("ssh")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    config = _written(
        directory / "sshd_config",
        f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nAllowTcpForwarding yes\n",
    )
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ExitOnForwardFailure=yes"]
    options += [f"ProxyCommand={sshd} -i -f {config} -E {directory}/sshd.log"]
    words = [word for option in options for word in ("-o", option)]
    return [ssh, "-F", "none", "-N", "-i", str(directory / "user"), "-D", f"127.0.0.1:{port}", *words, "here"]


#: The scheme of each kind, and what starts it.
Kinds = dict[str, tuple[str, Callable[[int, Path], list[str]]]]

KINDS: Kinds = {
    "ours": ("socks5", _ours),
    "ours, SOCKS4a": ("socks4a", _ours),
    "danted": ("socks5", _danted),
    "danted, SOCKS4": ("socks4", _danted),
    "microsocks": ("socks5", _microsocks),
    "ssh -D": ("socks5", _ssh),
    "ssh -D, SOCKS4a": ("socks4a", _ssh),
    "v2ray": ("socks5", _v2ray),
    "v2ray, HTTP": ("http", _v2ray_http),
    "squid": ("http", _squid),
    "tinyproxy": ("http", _tinyproxy),
    "ncat": ("http", _ncat),
}


def start(kind: str, directory: Path, kinds: Kinds = KINDS) -> Started:
    """Start a proxy, one of *kinds*, and wait until it listens."""
    scheme, command = kinds[kind]
    port = closed_port()
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen(
            command(port, directory), cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return Started(kind, scheme, port, process, directory)
    process.kill()
    process.wait()
    return missing(f"{kind} that starts: {(directory / 'output').read_text('utf-8', 'replace')[-300:]}")


@pytest.fixture(scope="module", params=list(KINDS))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Each proxy in turn."""
    yield from stopped(start(request.param, tmp_path_factory.mktemp("proxy")))


def stopped(made: Started) -> Iterator[Started]:
    """Give *made* to the tests, and stop it afterwards."""
    yield made
    made.process.terminate()
    try:
        made.process.wait(10)
    except subprocess.TimeoutExpired:
        made.process.kill()
        made.process.wait()


def speaks_first(sock: socket.socket) -> None:
    """A banner, as SMTP and SSH have it, and an echo."""
    sock.sendall(b"220 hello\r\n")
    echo(sock)


@pytest_twisted.inlineCallbacks
def test_banner_and_echo(running: Started) -> Playing:
    """e 1, 26: a destination that speaks first, and a megabyte both ways."""
    with Origin(speaks_first) as origin:
        endpoint = running.proxy.connect_endpoint("127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Recorders())
        yield until(lambda: protocol.heard == ["made", b"220 hello\r\n"])
        assert protocol.transport.protocol == protocol
        data = os.urandom(1 << 20)
        protocol.transport.write(data)
        yield until(lambda: len(protocol.heard[1]) == 11 + len(data))
        assert protocol.heard[1][11:] == data
        protocol.transport.loseConnection()
        yield until(lambda: protocol.heard[-1] is error.ConnectionDone)


@pytest_twisted.inlineCallbacks
def test_name(running: Started) -> Playing:
    """A name goes to the proxy; SOCKS4 has it looked up here."""
    with Origin(echo) as origin:
        endpoint = running.proxy.connect_endpoint("localhost", origin.port)
        protocol: Any = yield endpoint.connect(Recorders())
        protocol.transport.write(b"ping")
        yield until(lambda: protocol.heard[1:] == [b"ping"])
        protocol.transport.loseConnection()


#: What a refused connection is told as. v2ray says success before it dials.
REFUSED: dict[str, tuple[type[errors.ProxiedConnectError], ...]] = {
    "ours, SOCKS4a": (errors.GeneralFailure,),
    "danted, SOCKS4": (errors.GeneralFailure,),
    "ssh -D": (errors.ProxyClosed, errors.GeneralFailure),
    "ssh -D, SOCKS4a": (errors.ProxyClosed, errors.GeneralFailure),
    "tinyproxy": (errors.GeneralFailure, errors.ProxyClosed),
    "ncat": (errors.GeneralFailure, errors.DestinationTimedOut),
}


@pytest_twisted.inlineCallbacks
def test_refused(running: Started) -> Playing:
    """
    e 5: each proxy's way to say that the destination refuses, and none is taken for the proxy's failure.
    """
    endpoint = running.proxy.connect_endpoint("127.0.0.1", closed_port())
    if running.kind.startswith("v2ray"):
        protocol: Any = yield endpoint.connect(Recorders())
        yield until(lambda: isinstance(protocol.heard[-1], type))
        assert protocol.heard == ["made", protocol.heard[-1]]
        return
    with pytest.raises(REFUSED.get(running.kind, (errors.DestinationRefused,))) as caught:
        yield endpoint.connect(Recorders())
    assert not isinstance(caught.value, errors.ProxyError)


@pytest_twisted.inlineCallbacks
def test_name_that_does_not_exist(running: Started) -> Playing:
    """e 24: danted's reply has ATYP 3; each ends in one error that is not the proxy's."""
    endpoint = running.proxy.connect_endpoint("nowhere.invalid", 80)
    if running.kind.startswith("v2ray"):
        pytest.skip("v2ray says success")
    with pytest.raises(errors.ProxiedConnectError) as caught:
        yield endpoint.connect(Recorders())
    assert not isinstance(caught.value, errors.ProxyError)


@pytest_twisted.inlineCallbacks
def test_half_close(running: Started) -> Playing:
    """e 45: our side sends the end of one direction, and goes on to read the other."""
    with Origin(answer_at_the_end) as origin:
        endpoint = running.proxy.connect_endpoint("127.0.0.1", origin.port)
        protocol: Any = yield endpoint.connect(Factory.forProtocol(Halves))
        protocol.transport.write(b"question")
        protocol.transport.loseWriteConnection()
        yield until(lambda: "read" in protocol.heard or isinstance(protocol.heard[-1], type))
        if running.kind.partition(",")[0] in ("ours", "danted", "ssh -D"):  # the others end both directions
            assert any(isinstance(heard, bytes) for heard in protocol.heard)
        protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_bind(running: Started) -> Playing:
    """BIND, where the proxy serves it; elsewhere a typed refusal."""
    listening = running.proxy.listen_endpoint("127.0.0.1").listen(Recorders())
    if running.kind.partition(",")[0] not in ("ours", "danted"):
        with pytest.raises(errors.ProxiedConnectError):
            yield listening
        return
    port: Any = yield listening
    place = port.getHost()
    with socket.create_connection((place.host, place.port), 10) as peer:
        protocol: Any = yield port.when_accepted()
        peer.sendall(b"hello")
        yield until(lambda: protocol.heard == ["made", b"hello"])
        protocol.transport.loseConnection()


class Datagrams(DatagramProtocol):
    """Remembers what has come."""

    noisy = False

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((datagram, addr))


@pytest_twisted.inlineCallbacks
def test_udp(running: Started) -> Playing:
    """e 36, 42: danted wants zeros of the connection's family; microsocks says 7."""
    protocol = Datagrams()
    associating = running.proxy.associate(protocol)
    if running.kind not in ("ours", "danted", "v2ray"):
        with pytest.raises(errors.ProxiedConnectError) as caught:
            yield associating
        if running.kind == "microsocks":
            assert type(caught.value) is errors.CommandNotSupported
        return
    transport: Any = yield associating
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as origin:
        origin.bind(("127.0.0.1", 0))
        origin.setblocking(False)
        place = origin.getsockname()
        transport.write(b"ping", place)
        found: list[Any] = []

        def answered() -> bool:
            try:
                found.append(origin.recvfrom(100))
            except BlockingIOError:
                return False
            return True

        yield until(answered)
        origin.sendto(b"pong", found[0][1])
        yield until(lambda: protocol.heard)
        assert (found[0][0], protocol.heard) == (b"ping", [(b"pong", place)])
    yield transport.stopListening()


def _is_greeted(protocol: Recorder) -> bool:
    return protocol.heard == ["made", b"220 hello\r\n"]


@pytest_twisted.inlineCallbacks
def test_chain(running: Started, tmp_path: Path) -> Playing:
    """e 17: this proxy behind ours, and ours behind this proxy."""
    ours = start("ours", tmp_path)
    try:
        with Origin(speaks_first) as origin:
            for first, second in ((ours, running), (running, ours)):
                scheme = KINDS[second.kind][0]
                through = Proxy.from_url(f"{scheme}://127.0.0.1:{second.port}", via=first.proxy)
                protocol: Any = yield through.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
                yield until(functools.partial(_is_greeted, protocol))
                protocol.transport.loseConnection()
    finally:
        ours.process.terminate()
        ours.process.wait()


def _with_login(kind: str, port: int, directory: Path) -> list[str]:
    """A proxy for the user ann with the password secret."""
    if kind == "microsocks":
        return [*_microsocks(port, directory), "-u", "ann", "-P", "secret"]
    if kind == "ncat":
        return [
            require("ncat"),
            "-lk",
            "--proxy-type",
            "http",
            "--proxy-auth",
            "ann:secret",
            "127.0.0.1",
            str(port),
        ]
    command = _tinyproxy(port, directory)
    with open(command[-1], "a") as config:
        config.write("BasicAuth ann secret\n")
    return command


@pytest.mark.parametrize("kind", ["microsocks", "ncat", "tinyproxy"])
@pytest_twisted.inlineCallbacks
def test_login(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """The right password, a wrong one, and none."""
    monkeypatch.setitem(KINDS, kind, (KINDS[kind][0], functools.partial(_with_login, kind)))
    running = start(kind, tmp_path)
    try:
        with Origin(speaks_first) as origin:
            ann = running.proxy.with_login(UsernamePassword("ann", "secret"))
            protocol: Any = yield ann.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
            yield until(lambda: _is_greeted(protocol))
            protocol.transport.loseConnection()
            for login, kinds in (
                (UsernamePassword("ann", "wrong"), (errors.ProxyRefusedLogin, errors.NotAllowed)),
                (None, (errors.NoAcceptableMethod,)),
            ):
                other = running.proxy.with_login(login)
                with pytest.raises(kinds):
                    yield other.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
    finally:
        running.process.terminate()
        running.process.wait()


@pytest_twisted.inlineCallbacks
def test_squid_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """e 15: TLS to a real proxy, and a banner inside; a proxy with another name is not believed."""
    authority = Authority(tmp_path)
    certificate = authority.issue("proxy.test", alternatives=[x509.DNSName("proxy.test")], usage=SERVER)
    trust = ssl.Certificate.loadPEM(authority.ca_file.read_bytes())

    def squid(port: int, directory: Path) -> list[str]:
        command = _squid(port, directory)
        config = Path(command[-1])
        certificate.chmod(0o644)
        listen = f"https_port 127.0.0.1:{port} tls-cert={certificate}"
        config.write_text(config.read_text().replace(f"http_port 127.0.0.1:{port}", listen))
        return command

    monkeypatch.setitem(KINDS, "squid", ("https", squid))
    running = start("squid", tmp_path)
    try:
        with Origin(speaks_first) as origin:
            for name, kind in (("proxy.test", None), ("other.test", errors.ProxyUnreachable)):
                context = ssl.optionsForClientTLS(name, trustRoot=trust)
                proxy = Proxy.from_url(f"https://127.0.0.1:{running.port}", context=context)
                connecting = proxy.connect_endpoint("127.0.0.1", origin.port).connect(Recorders())
                if kind is not None:
                    with pytest.raises(kind):
                        yield connecting
                    continue
                protocol: Any = yield connecting
                yield until(functools.partial(_is_greeted, protocol))
                protocol.transport.loseConnection()
    finally:
        running.process.terminate()
        running.process.wait()


@pytest_twisted.inlineCallbacks
def test_tor_without_a_network(tmp_path: Path) -> Playing:
    """
    Tor's own replies, by name: an onion address that is none (F6), and an address that Tor does not serve.
    """
    KINDS["tor"] = ("socks5", _tor)
    tor = start("tor", tmp_path)
    try:
        bad = "a" * 56 + ".onion"
        with pytest.raises(errors.DestinationNameNotFound) as caught:
            yield tor.proxy.connect_endpoint(bad, 80).connect(Recorders())
        assert caught.value.reply == 0xF6
        with pytest.raises(errors.ProxiedConnectError):
            yield tor.proxy.connect_endpoint("127.0.0.1", 80).connect(Recorders())
        with pytest.raises(errors.ProxiedConnectError):
            yield tor.proxy.resolve(bad)
    finally:
        tor.process.terminate()
        tor.process.wait()
