"""TLS certificates of clients: see :mod:`socksproxy.auth.checkers.tls`."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, findCheckerFactory, makeChecker
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers.tls import NAMES, CertificateChecker, ask_for_certificates
from socksproxy.auth.credentials import Certificate, ICertificate
from socksproxy.errors import NotAuthenticated
from socksproxy.workers.descriptor_passing import SupervisorResources, WorkerResources, file_of
from tests.support.authority import SERVER, Authority
from tests.support.proxy import PATIENCE

reactor: Any = _reactor

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DAY = timedelta(days=1)
PROXY = b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 1080\r\n"


class _Tell(Protocol):
    """Tells a client, once it has said something, whom its certificate names."""

    factory: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard.append(data)
        certificate = self.transport.getPeerCertificate()
        if certificate is None:
            self._tell("no certificate")
            return
        asking = self.factory.checker.requestAvatarId(Certificate(certificate))
        asking.addErrback(lambda failure: f"refused: {failure.value}").addCallback(self._tell)

    def _tell(self, text: str) -> None:
        self.transport.write(text.encode())
        self.transport.loseConnection()


class Server(Factory):
    """
    Listens, and asks for certificates.

    :ivar heard: what clients have said.
    """

    noisy = False
    protocol = _Tell

    def __init__(self, authority: Authority, checker: CertificateChecker | None = None) -> None:
        self.authority = authority
        self.heard: list[bytes] = []
        self.checker = checker or CertificateChecker(str(authority.ca_file))
        alternatives = [x509.DNSName("proxy.example")]
        self.pem = authority.issue("proxy.example", alternatives=alternatives, usage=SERVER)

    async def listen(self, endpoint: Any = None) -> Server:
        if endpoint is None:
            endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={self.pem}")
        assert ask_for_certificates(endpoint, self.checker.ca_file)
        self.port = await endpoint.listen(self)
        return self

    def context(self, pem: Path | None = None, version: Any = None) -> ssl.SSLContext:
        """What a client needs that has the certificate in *pem*."""
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if pem is not None:
            context.load_cert_chain(pem)
        return context

    def told(
        self, context: ssl.SSLContext, first: bytes = b"", session: Any = None
    ) -> Deferred[tuple[str, ssl.SSLSocket]]:
        """What a client is told, and its socket, which is closed."""

        def client() -> tuple[str, ssl.SSLSocket]:
            plain = socket.create_connection(("127.0.0.1", self.port.getHost().port), PATIENCE)
            with context.wrap_socket(plain, server_hostname="proxy.example", session=session) as sock:
                sock.sendall(first + b"hello")
                told = b""
                while data := sock.recv(1000):
                    told += data
                self.session, self.reused = sock.session, sock.session_reused
            return told.decode(), sock

        return deferToThread(client)

    async def name(self, pem: Path | None, version: Any = None) -> str:
        return (await self.told(self.context(pem, version)))[0]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve(authority: Authority) -> Iterator[Callable[..., Any]]:
    """``await serve(endpoint)``: start a :class:`Server`; it is stopped after the test."""
    running: list[Server] = []

    def started(endpoint: Any = None, checker: Any = None) -> Any:
        running.append(Server(authority, checker))
        return running[-1].listen(endpoint)

    yield started
    for server in running:
        pytest_twisted.blockon(server.port.stopListening())


# The listener.


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest_twisted.ensureDeferred
async def test_with_and_without(serve: Callable[..., Any], authority: Authority, version: Any) -> None:
    """Who has a certificate is known by it; who has none comes in all the same."""
    server = await serve()
    assert await server.name(authority.issue("bob"), version) == "bob"
    assert await server.name(None, version) == "no certificate"


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda directory, authority: Authority(directory, "foreign").issue("bob"),
        # Its name is right, but not its key.
        lambda directory, authority: Authority(directory / "other").issue("bob"),
        lambda directory, authority: authority.issue("bob", begins=-2 * DAY, ends=-DAY),
        lambda directory, authority: authority.issue("bob", begins=DAY, ends=2 * DAY),
        lambda directory, authority: authority.issue("bob", usage=SERVER),
    ],
    ids=["foreign", "namesake", "expired", "not valid yet", "for servers"],
)
@pytest_twisted.ensureDeferred
async def test_bad_certificate(
    serve: Callable[..., Any], authority: Authority, tmp_path: Path, version: Any, wrong: Any
) -> None:
    """The handshake fails: not a byte of the client's is heard."""
    (tmp_path / "other").mkdir()
    server = await serve()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.name(wrong(tmp_path, authority), version)
    assert server.heard == []
    assert await server.name(authority.issue("alice"), version) == "alice"


@pytest_twisted.ensureDeferred
async def test_authority_below(serve: Callable[..., Any], authority: Authority, tmp_path: Path) -> None:
    """A client shows the certificates between its own and the authority's."""
    below = Authority(tmp_path, "below", authority)
    server = await serve()
    assert await server.name(below.issue("bob", chain=[below])) == "bob"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.name(below.issue("bob"))


@pytest_twisted.ensureDeferred
async def test_several_authorities(serve: Callable[..., Any], authority: Authority, tmp_path: Path) -> None:
    """One file can hold them all."""
    second = Authority(tmp_path, "second")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca_file.read_bytes() + second.ca_file.read_bytes())
    server = await serve(checker=CertificateChecker(str(both)))
    assert await server.name(authority.issue("alice")) == "alice"
    assert await server.name(second.issue("bob")) == "bob"


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("resumes", [False, True])
@pytest_twisted.ensureDeferred
async def test_resumed(serve: Callable[..., Any], authority: Authority, version: Any, resumes: bool) -> None:
    """A client that comes again with its session is still who it was, whether TLS resumes it or not."""
    pem = authority.issue("proxy.example", alternatives=[x509.DNSName("proxy.example")], usage=SERVER)
    own = PrivateCertificate.loadPEM(pem.read_bytes())
    options = CertificateOptions(
        own.privateKey.original, own.original, enableSessions=resumes, enableSessionTickets=resumes
    )
    server = await serve(SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1"))
    context = server.context(authority.issue("bob"), version)
    assert (await server.told(context))[0] == "bob"
    told, _ = await server.told(context, session=server.session)
    assert server.reused is resumes
    assert told == "bob"


@pytest_twisted.ensureDeferred
async def test_workers(authority: Authority) -> None:
    """A worker's listener asks as that of a process by itself does, on the supervisor's port."""
    server = Server(authority)
    description = f"ssl:0:interface=127.0.0.1:privateKey={server.pem}"
    resources = SupervisorResources(reactor)
    endpoint = resources.endpoint(0, description)
    assert ask_for_certificates(endpoint, str(authority.ca_file))
    port: Any = await endpoint.listen(server)
    files = {name: file_of(content) for name, content in resources.files.items()}
    worker = WorkerResources(reactor, [[os.dup(port.fileno())]], files, None)
    await server.listen(worker.endpoint(0, description))
    assert server.port.getHost() == port.getHost()
    assert await server.name(authority.issue("bob")) == "bob"
    assert await server.name(None) == "no certificate"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.name(authority.issue("bob", ends=-DAY / 2))
    await server.port.stopListening()
    await port.stopListening()
    for descriptor in files.values():
        os.close(descriptor)


@pytest.mark.parametrize(
    "listen",
    [
        "tcp:0",
        "unix:/nonexistent/socks",
        "haproxy:tcp:0",
        r"tcp6:0:interface=\:\:1",
        "haproxy:ssl:0:privateKey={pem}",  # whoever comes through a balancer would be the balancer
    ],
)
def test_without_tls(authority: Authority, listen: str) -> None:
    """There is nothing to ask, and nothing else becomes of it."""
    pem = authority.issue("proxy.example", usage=SERVER)
    endpoint = serverFromString(reactor, listen.format(pem=pem))
    assert not ask_for_certificates(endpoint, str(authority.ca_file))


def test_twice(authority: Authority, tmp_path: Path) -> None:
    """The same authorities again are no harm; others would vouch for names that are not theirs to give."""
    pem = authority.issue("proxy.example", usage=SERVER)
    endpoint = serverFromString(reactor, f"ssl:0:privateKey={pem}")
    assert ask_for_certificates(endpoint, str(authority.ca_file))
    assert ask_for_certificates(endpoint, str(authority.ca_file))
    with pytest.raises(InvalidAuthArgumentString, match="comes second"):
        ask_for_certificates(endpoint, str(Authority(tmp_path, "second").ca_file))


# The name.

EMAIL, DNS, URI = (
    x509.RFC822Name("bob@example.org"),
    x509.DNSName("bob.example.org"),
    x509.UniformResourceIdentifier("spiffe://example.org/bob"),
)
ADDRESS = x509.DirectoryName(x509.Name([]))
KEY = ec.generate_private_key(ec.SECP256R1())


def named(authority: Authority, kind: str, *names: str, alternatives: Any = (), ends: timedelta = DAY) -> Any:
    """What the checker makes of a certificate: the name, or why it is refused."""
    certificate = authority.certify(KEY, names, alternatives, -2 * DAY, ends)
    checker = CertificateChecker(str(authority.ca_file), kind)
    found: list[Any] = []
    asking = checker.requestAvatarId(Certificate(X509.from_cryptography(certificate)))
    asking.addBoth(found.append)
    [outcome] = found
    if isinstance(outcome, str):
        return outcome
    assert outcome.check(NotAuthenticated)
    return [str(outcome.value)]


@pytest.mark.parametrize(
    ("kind", "names", "alternatives", "outcome"),
    [
        ("subject", ["bob"], [EMAIL], "bob"),
        ("subject", ["Bob Ünal"], [], "Bob Ünal"),
        ("subject", ["bob", "root"], [], ["the client's certificate has several names of the kind subject"]),
        ("subject", [], [EMAIL], ["the client's certificate has no name of the kind subject"]),
        ("email", ["x"], [DNS, EMAIL, URI], "bob@example.org"),
        ("dns", ["x"], [DNS, EMAIL, URI], "bob.example.org"),
        ("uri", ["x"], [DNS, EMAIL, URI], "spiffe://example.org/bob"),
        ("san", ["x"], [EMAIL], "bob@example.org"),
        ("san", ["x"], [ADDRESS, DNS], "bob.example.org"),
        ("san", ["x"], [URI], "spiffe://example.org/bob"),
        ("san", ["x"], [URI, URI], "spiffe://example.org/bob"),
        ("san", ["x"], [DNS, EMAIL], ["the client's certificate has several names of the kind san"]),
        ("san", ["bob"], [ADDRESS], ["the client's certificate has no name of the kind san"]),
        ("san", ["bob"], [], ["the client's certificate has no name of the kind san"]),
        (
            "email",
            ["x"],
            [EMAIL, x509.RFC822Name("root@example.org")],
            ["the client's certificate has several names of the kind email"],
        ),
        ("email", ["bob"], [DNS], ["the client's certificate has no name of the kind email"]),
        ("subject", ["bob\n"], [], ["the name in the client's certificate is not one of a user"]),
        ("subject", ["bob\0"], [], ["the name in the client's certificate is not one of a user"]),
        (
            "dns",
            ["x"],
            [x509.DNSName("*.example.org")],
            ["the name in the client's certificate is not one of a user"],
        ),
    ],
)
def test_names(authority: Authority, kind: str, names: list[str], alternatives: Any, outcome: Any) -> None:
    assert named(authority, kind, *names, alternatives=alternatives) == outcome


def test_expired(authority: Authority) -> None:
    """TLS has seen it when the session began; a session that it resumes may be old."""
    assert named(authority, "subject", "bob", ends=-DAY) == ["the client's certificate has expired"]


def test_unreadable(authority: Authority) -> None:
    """What OpenSSL passes and others would not is no name."""
    odd = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x81\x01\xff")
    certificate = authority.certify(KEY, ["bob"], more=[odd])
    checker = CertificateChecker(str(authority.ca_file), "email")
    found: list[Any] = []
    checker.requestAvatarId(Certificate(X509.from_cryptography(certificate))).addErrback(found.append)
    assert found[0].check(NotAuthenticated)
    assert str(found[0].value) == "the client's certificate cannot be read"


# The command line.


def test_plugin(authority: Authority) -> None:
    factory = findCheckerFactory("tls")
    assert verifyObject(ICheckerFactory, factory)
    assert factory.credentialInterfaces == (ICertificate,)
    checker = makeChecker(f"tls:ca={authority.ca_file}")
    assert verifyObject(ICredentialsChecker, checker)
    assert checker.ca_file == str(authority.ca_file)
    for name in NAMES:
        assert makeChecker(f"tls:name={name}:ca={authority.ca_file}").ca_file == str(authority.ca_file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "tls: ca=FILE must name the authorities whose certificates count"),
        ("name=subject", "tls: ca=FILE must name the authorities whose certificates count"),
        ("ca=/nonexistent/ca.pem", "tls: ca=/nonexistent/ca.pem: no such file or directory"),
        ("ca=/", "tls: ca=/: is a directory"),
        ("ca=/dev/null", "tls: ca=/dev/null: is not a regular file"),
        ("ca={ca}:name=cn", "tls: name=cn is none of subject, email, dns, uri, san"),
        ("ca={ca}:crl=x", "tls: crl=x is not ca= or name= and a value"),
    ],
)
def test_bad_arguments(authority: Authority, text: str, why: str) -> None:
    with pytest.raises(InvalidAuthArgumentString) as refused:
        makeChecker(f"tls:{text.format(ca=authority.ca_file)}")
    assert str(refused.value) == why


def test_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
    with pytest.raises(InvalidAuthArgumentString, match="has no certificates in PEM"):
        makeChecker(f"tls:ca={broken}")


def test_without_the_extra(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy can be installed without TLS."""
    import sys

    monkeypatch.delitem(sys.modules, "socksproxy.auth.checkers.tls")
    monkeypatch.setitem(sys.modules, "OpenSSL.crypto", None)
    with pytest.raises(InvalidAuthArgumentString, match=r"^tls: the extra \[tls\] is not installed"):
        makeChecker(f"tls:ca={authority.ca_file}")
