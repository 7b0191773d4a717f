"""The exchange of RFC 1961 and what it agrees on, with tickets of a real KDC."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from twisted.cred.portal import Portal
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from socksproxy.auth.checkers.threads import CheckThreads
from socksproxy.auth.credentials import GSSAPIName, IGSSAPIName
from socksproxy.auth.users import Realm as Users
from socksproxy.errors import NotAuthenticated
from socksproxy.identity import ISOCKSUser
from socksproxy.logs.printable import printable
from socksproxy.negotiation import IExchange, IMethod, IWrapping, LogIn, Say
from socksproxy.wire.gssapi import (
    MAX_TOKEN,
    Level,
    MessageType,
    build_abort,
    build_encapsulated,
    build_message,
    parse_message,
)
from socksproxy.wire.words import ProtocolError
from tests.support.kerberos import Initiator, Realm, whole_message

library = pytest.importorskip("gssapi")
if TYPE_CHECKING:
    from socksproxy.auth.checkers import gssapi
else:
    gssapi = pytest.importorskip("socksproxy.auth.checkers.gssapi")

Protection = gssapi.Protection


class Here(CheckThreads):
    """A pool without threads."""

    def run(self, check: Callable[..., Any], *arguments: Any, share: object = None) -> Deferred[Any]:
        return maybeDeferred(check, *arguments)


@pytest.fixture(scope="module")
def acceptor(realm: Realm) -> gssapi.ContextAcceptor:
    return gssapi.ContextAcceptor(realm.keytab)


class Conversation:
    """
    What a session does with an exchange; everybody is let in.

    :ivar said: what the client has been sent.
    :ivar who: the credentials that it ended in.
    """

    def __init__(self, acceptor: Any, protection: gssapi.Protection = Protection.INTEGRITY) -> None:
        self.exchange = gssapi.GSSAPIMethod(acceptor, Here(), protection).begin(None)
        self.said = b""
        self.who: Any = None
        self.left = b""

    def hear(self, data: bytes) -> bytes:
        """Take *data* from the client; what it is told."""
        before = len(self.said)
        self.left += data
        while self.who is None:
            taken, move = self.exchange.receive(self.left)
            self.left = self.left[taken:]
            if isinstance(move, Deferred):
                found: list[Any] = []
                move.addBoth(found.append)
                (move,) = found
                if not isinstance(move, (Say, LogIn)):
                    move.raiseException()
            if isinstance(move, Say):
                self.said += move.data
            elif isinstance(move, LogIn):
                self.who = move.credentials
                self.said += self.exchange.judged(True)
            else:
                assert not taken
                break
        return self.said[before:]


def establish(
    acceptor: gssapi.ContextAcceptor,
    initiator: Initiator,
    level: int = Level.CONFIDENTIALITY,
    protection: gssapi.Protection = Protection.INTEGRITY,
    bare: bool = False,
) -> tuple[int, Any]:
    """A whole exchange: the level that the client is told, and the server's wrapping."""
    conversation = Conversation(acceptor, protection)
    said = conversation.hear(initiator.first())
    assert initiator.next(said) == b""
    said = conversation.hear(initiator.ask(level, bare))
    assert conversation.who.principal == "bob@SOCKS.TEST"
    return initiator.told(said, bare), conversation.exchange.wrapping()


def refused(conversation: Conversation, data: bytes) -> str:
    """Why *data* ends the conversation, and nothing but FF is said."""
    with pytest.raises((ProtocolError, NotAuthenticated)) as caught:
        conversation.hear(data)
    assert conversation.who is None
    assert conversation.exchange.judged(False) == b"\x01\xff"
    return str(caught.value)


# The exchange.


def test_interfaces(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    method = gssapi.GSSAPIMethod(acceptor, Here())
    assert verifyObject(IMethod, method)
    assert (method.number, method.name, method.credentials) == (1, "gssapi", IGSSAPIName)
    assert verifyObject(IExchange, method.begin(None))
    assert verifyObject(IWrapping, establish(acceptor, Initiator(bob))[1])


@pytest.mark.parametrize("bare", [False, True], ids=["rfc", "nec"])
@pytest.mark.parametrize(
    ("protection", "wanted", "told"),
    [
        *((Protection.NONE, level, 0) for level in Level),
        *((Protection.OPTIONAL, *levels) for levels in ((0, 0), (1, 1), (2, 2), (3, 2))),
        *((Protection.INTEGRITY, *levels) for levels in ((0, 1), (1, 1), (2, 2), (3, 2))),
        *((Protection.CONFIDENTIALITY, level, 2) for level in Level),
    ],
)
def test_protection_levels(
    acceptor: gssapi.ContextAcceptor,
    bob: dict[str, str],
    protection: gssapi.Protection,
    wanted: int,
    told: int,
    bare: bool,
) -> None:
    """The answer has the form of the question, and what follows is as it says."""
    initiator = Initiator(bob)
    level, wrapping = establish(acceptor, initiator, wanted, protection, bare)
    assert level == told
    if not level:
        assert wrapping is None
        return
    token = whole_message(wrapping.wrap(b"a secret")).token
    assert (b"a secret" in token) is (level == Level.INTEGRITY)
    assert initiator.context.unwrap(token).message == b"a secret"


def test_several_rounds(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    """DCE's style has three tokens: nobody is known after the first."""
    initiator = Initiator(bob, flags=(library.RequirementFlag.dce_style,))
    conversation = Conversation(acceptor)
    third = initiator.next(conversation.hear(initiator.first()))
    assert third
    assert conversation.hear(third) == b""
    said = conversation.hear(initiator.ask(1))
    assert initiator.told(said) == 1
    assert conversation.who.principal == "bob@SOCKS.TEST"


def test_without_mutual_authentication(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    """The client waits for nothing, and sends both messages at once."""
    initiator = Initiator(bob, mutual=False)
    conversation = Conversation(acceptor)
    said = conversation.hear(initiator.first() + initiator.ask(2, bare=True))
    assert initiator.told(said, bare=True) == 2


def test_what_stands_behind_is_left(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    initiator = Initiator(bob, mutual=False)
    conversation = Conversation(acceptor)
    conversation.hear(initiator.first() + initiator.ask(2) + b"\x01\x03")
    assert conversation.left == b"\x01\x03"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.floats(0, 1, exclude_max=True), max_size=6).map(sorted))
def test_split_anywhere(acceptor: gssapi.ContextAcceptor, bob: dict[str, str], cuts: list[float]) -> None:
    initiator = Initiator(bob)
    conversation = Conversation(acceptor)

    def say(message: bytes) -> bytes:
        places = [0, *(int(cut * len(message)) for cut in cuts), len(message)]
        said = [conversation.hear(message[a:b]) for a, b in pairwise(places)]
        assert not any(said[:-1])
        return said[-1]

    assert initiator.next(say(initiator.first())) == b""
    assert initiator.told(say(initiator.ask(2))) == 2
    assert conversation.who.principal == "bob@SOCKS.TEST"


def test_byte_by_byte(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    initiator = Initiator(bob)
    conversation = Conversation(acceptor)
    for message in (initiator.first(), None):
        data = message or initiator.ask(1)
        for at in range(len(data) - 1):
            assert conversation.hear(data[at : at + 1]) == b""
        said = conversation.hear(data[-1:])
        if message:
            initiator.next(said)
    assert initiator.told(said) == 1


# Whom it turns away.


def test_no_ticket_at_all(acceptor: gssapi.ContextAcceptor) -> None:
    reason = refused(Conversation(acceptor), build_message(MessageType.AUTHENTICATION, b"let me in"))
    assert reason == "Invalid token was supplied"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.binary(min_size=1, max_size=900))
def test_any_token(acceptor: gssapi.ContextAcceptor, token: bytes) -> None:
    """Our error, never anything else."""
    reason = refused(Conversation(acceptor), build_message(MessageType.AUTHENTICATION, token))
    assert reason.isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_token_that_was_changed(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], place: float, bit: int
) -> None:
    """
    Every bit of it counts, or is one that is not protected and decides nothing.

    (The plain text around what is encrypted: the ticket's key version, and such.)
    """
    token = bytearray(whole_message(Initiator(bob).first()).token)
    token[int(place * len(token))] ^= 1 << bit
    conversation = Conversation(acceptor)
    try:
        conversation.hear(build_message(MessageType.AUTHENTICATION, bytes(token)))
        conversation.hear(build_message(MessageType.PROTECTION_LEVEL, b"\x02"))
    except (ProtocolError, NotAuthenticated):
        assert conversation.who is None
    else:
        assert conversation.who.principal == "bob@SOCKS.TEST"


def test_a_replay(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    message = Initiator(bob).first()
    Conversation(acceptor).hear(message)
    assert refused(Conversation(acceptor), message).endswith("Request is a replay")


def test_clock_skew(acceptor: gssapi.ContextAcceptor, realm: Realm) -> None:
    message = Initiator(realm.log_in_with_wrong_clock("bob", 3600)).first()
    reason = refused(Conversation(acceptor), message)
    assert reason.startswith("Unspecified GSS failure")
    assert reason.endswith("Clock skew too great")


def test_another_service(realm: Realm, bob: dict[str, str], tmp_path: Path) -> None:
    """Its key may be in the same file, as a machine's keys are; its tickets are not for us."""
    keytab = tmp_path / "keytab"
    realm.add_service("rcmd/here", keytab)
    realm.add_service("host/here", keytab)
    acceptor = gssapi.ContextAcceptor(str(keytab))
    reason = refused(Conversation(acceptor), Initiator(bob, "host@here").first())
    assert reason == "the ticket is for host/here@SOCKS.TEST, not for rcmd or socks"
    assert Conversation(acceptor).hear(Initiator(bob, "rcmd@here").first())
    other = gssapi.ContextAcceptor(str(keytab), ["host"])
    assert Conversation(other).hear(Initiator(bob, "host@here").first())


def test_another_principal(
    acceptor: gssapi.ContextAcceptor, realm: Realm, bob: dict[str, str], tmp_path: Path
) -> None:
    """A ticket for a name whose key we do not have."""
    realm.add_service("rcmd/elsewhere", tmp_path / "keytab")
    reason = refused(Conversation(acceptor), Initiator(bob, "rcmd@elsewhere").first())
    assert "rcmd/elsewhere@SOCKS.TEST" in reason
    assert "keytab" in reason


def test_an_old_key(realm: Realm, bob: dict[str, str], tmp_path: Path) -> None:
    """The principal has got a new key since the file was made."""
    keytab = tmp_path / "keytab"
    realm.add_service("rcmd/moved", keytab)
    acceptor = gssapi.ContextAcceptor(str(keytab))
    realm.change_key("rcmd/moved", tmp_path / "new")
    reason = refused(Conversation(acceptor), Initiator(bob, "rcmd@moved").first())
    assert "kvno 2 not found in keytab" in reason


def test_keys_that_come_later(realm: Realm, bob: dict[str, str], tmp_path: Path) -> None:
    """The file is read again: nobody has to start the server anew for a new key."""
    keytab = tmp_path / "keytab"
    realm.add_service("rcmd/first", keytab)
    acceptor = gssapi.ContextAcceptor(str(keytab))
    realm.add_service("rcmd/second", keytab)
    assert Conversation(acceptor).hear(Initiator(bob, "rcmd@second").first())


@pytest.mark.parametrize(
    "message",
    [
        build_abort(),
        build_message(MessageType.PROTECTION_LEVEL, b"\x02"),
        build_encapsulated(b"\x05\x01\x00"),
        b"\x05\x01\x00",
        b"\x01\x01\x00\x00",
    ],
)
def test_messages_out_of_turn(acceptor: gssapi.ContextAcceptor, message: bytes) -> None:
    refused(Conversation(acceptor), message)


@pytest.mark.parametrize(
    "message",
    [
        build_abort(),
        build_message(MessageType.AUTHENTICATION, b"once more"),
        build_encapsulated(b"\x05\x01\x00"),
        build_message(MessageType.PROTECTION_LEVEL, b"\x04"),
        build_message(MessageType.PROTECTION_LEVEL, b"\x01\x02"),
        build_message(MessageType.PROTECTION_LEVEL, b"x" * 60),
    ],
)
def test_messages_in_place_of_a_level(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], message: bytes
) -> None:
    conversation = Conversation(acceptor)
    conversation.hear(Initiator(bob).first())
    refused(conversation, message)


@pytest.mark.parametrize("wanted", [b"", b"\x04", b"\x01\x01"])
def test_encapsulated_levels_that_are_none(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], wanted: bytes
) -> None:
    initiator, conversation = Initiator(bob), Conversation(acceptor)
    initiator.next(conversation.hear(initiator.first()))
    token = initiator.context.wrap(wanted, False).message
    refused(conversation, build_message(MessageType.PROTECTION_LEVEL, token))


def test_good_tokens_of_the_wrong_type(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    """What a message is, its type alone says."""
    initiator = Initiator(bob)
    first = initiator.first()
    refused(Conversation(acceptor), build_encapsulated(first[4:]))
    conversation = Conversation(acceptor)
    initiator.next(conversation.hear(first))
    refused(conversation, build_message(MessageType.AUTHENTICATION, initiator.ask(2)[4:]))


@pytest.mark.parametrize("kind", [MessageType.AUTHENTICATION, MessageType.PROTECTION_LEVEL])
def test_good_data_of_the_wrong_type(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], kind: MessageType
) -> None:
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator)[1]
    with pytest.raises(ProtocolError, match="where 3 was due"):
        wrapping.unwrap(build_message(kind, closed(initiator, b"data")[4:]))


class Endless:
    """Wants one token more, always."""

    def accept(self, token: bytes, context: Any) -> gssapi.Accepted:
        return gssapi.Accepted(object(), b"more", None)


def test_rounds_are_bounded() -> None:
    conversation = Conversation(Endless())
    message = build_message(MessageType.AUTHENTICATION, b"token")
    for _ in range(gssapi.MAX_ROUNDS):
        assert conversation.hear(message) == build_message(MessageType.AUTHENTICATION, b"more")
    assert refused(conversation, message) == "GSSAPI: too many tokens"


# What is encapsulated.


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def opened(initiator: Initiator, data: bytes) -> bytes:
    """What the client finds in *data*."""
    found = b""
    while data:
        parsed = parse_message(data)
        assert parsed is not None
        message, taken = parsed
        assert message.type is MessageType.ENCAPSULATION
        data = data[taken:]
        found += initiator.context.unwrap(message.token).message
    return found


def closed(initiator: Initiator, data: bytes, encrypt: bool = True) -> bytes:
    """A message of the client's."""
    return build_encapsulated(initiator.context.wrap(data, encrypt).message)


levels = pytest.mark.parametrize("level", [Level.INTEGRITY, Level.CONFIDENTIALITY])


@levels
@pytest.mark.parametrize("size", [0, 1, 65474, 65475, 65476, 65507, 65508, 65536, 300_000])
def test_to_the_client(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], level: Level, size: int
) -> None:
    """In as many messages as it takes: no token has more than 65,535 bytes."""
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator, level)[1]
    data = wrapping.wrap(pattern(size))
    assert (data == b"") is (size == 0)
    assert opened(initiator, data) == pattern(size)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), level=st.sampled_from([Level.INTEGRITY, Level.CONFIDENTIALITY]))
def test_from_the_client(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], data: st.DataObject, level: Level
) -> None:
    """However messages are cut and put together."""
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator, level)[1]
    payloads = data.draw(st.lists(st.binary(max_size=200), max_size=5))
    stream = b"".join(closed(initiator, payload) for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    places = [0, *cuts, len(stream)]
    found = [wrapping.unwrap(stream[a:b]) for a, b in pairwise(places)]
    assert b"".join(found) == b"".join(payloads)


def test_the_longest_message_of_the_client(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator)[1]
    most = initiator.context.get_wrap_size_limit(MAX_TOKEN, True)
    data = closed(initiator, pattern(most))
    assert len(data) == 4 + MAX_TOKEN
    assert wrapping.unwrap(data[:-1]) == b""
    assert wrapping.unwrap(data[-1:] + data[:3]) == pattern(most)


@levels
def test_what_was_changed_on_the_way(
    acceptor: gssapi.ContextAcceptor, bob: dict[str, str], level: Level
) -> None:
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator, level)[1]
    data = bytearray(closed(initiator, b"GET / HTTP/1.0", level == Level.CONFIDENTIALITY))
    data[-20] ^= 1
    with pytest.raises(ProtocolError, match="GSSAPI: "):
        wrapping.unwrap(bytes(data))


def test_a_message_twice(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator)[1]
    data = closed(initiator, b"buy")
    assert wrapping.unwrap(data) == b"buy"
    with pytest.raises(ProtocolError, match="GSSAPI: "):
        wrapping.unwrap(data)


def test_what_is_not_encrypted(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    """Where confidentiality was agreed on, a client that forgets it is cut off."""
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator)[1]
    with pytest.raises(ProtocolError, match="not encrypted"):
        wrapping.unwrap(closed(initiator, b"a secret", encrypt=False))


@pytest.mark.parametrize(
    "data",
    [
        b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
        build_message(MessageType.AUTHENTICATION, b"token"),
        build_message(MessageType.PROTECTION_LEVEL, b"\x01"),
        build_abort(),
        build_encapsulated(b"token"),
        b"\x01\x03\x00\x00",
    ],
)
def test_what_is_not_encapsulated(acceptor: gssapi.ContextAcceptor, bob: dict[str, str], data: bytes) -> None:
    wrapping = establish(acceptor, Initiator(bob))[1]
    with pytest.raises(ProtocolError):
        wrapping.unwrap(data)
    with pytest.raises(ProtocolError):
        wrapping.unwrap_datagram(data)


@levels
@pytest.mark.parametrize("size", [0, 1, 1472, 65000])
def test_datagrams(acceptor: gssapi.ContextAcceptor, bob: dict[str, str], level: Level, size: int) -> None:
    """Each is one message, and the order in which they come is nobody's business."""
    initiator = Initiator(bob)
    wrapping = establish(acceptor, initiator, level)[1]
    whole_message(wrapping.wrap_datagram(pattern(size)))
    assert opened(initiator, wrapping.wrap_datagram(pattern(size))) == pattern(size)
    first, second = (closed(initiator, bytes((number,)) + pattern(size)) for number in (1, 2))
    assert wrapping.unwrap_datagram(second) == b"\x02" + pattern(size)
    assert wrapping.unwrap_datagram(first) == b"\x01" + pattern(size)


def test_a_datagram_that_is_too_long(acceptor: gssapi.ContextAcceptor, bob: dict[str, str]) -> None:
    wrapping = establish(acceptor, Initiator(bob))[1]
    with pytest.raises(ProtocolError):
        wrapping.wrap_datagram(pattern(65500))


# Names.


@pytest.mark.parametrize(
    ("principal", "local", "name"),
    [
        ("bob@SOCKS.TEST", "SOCKS.TEST", "bob"),
        ("bob/admin@SOCKS.TEST", "SOCKS.TEST", "bob/admin"),
        ("bob@SOCKS.TEST", None, "bob@SOCKS.TEST"),
        ("bob@OTHER.TEST", "SOCKS.TEST", "bob@OTHER.TEST"),
        ("bob@EVIL.SOCKS.TEST", "SOCKS.TEST", "bob@EVIL.SOCKS.TEST"),
        (r"bob\@SOCKS.TEST@OTHER.TEST", "SOCKS.TEST", r"bob\@SOCKS.TEST@OTHER.TEST"),
        (r"bob\@SOCKS.TEST", "SOCKS.TEST", r"bob\@SOCKS.TEST"),
        ("@SOCKS.TEST", "SOCKS.TEST", "@SOCKS.TEST"),
    ],
)
def test_names_of_users(
    acceptor: gssapi.ContextAcceptor, principal: str, local: str | None, name: str
) -> None:
    checker = gssapi.GSSAPIChecker(gssapi.GSSAPIMethod(acceptor, Here()), local)
    assert checker.requestAvatarId(GSSAPIName(principal)) == name


def test_local_realm(realm: Realm) -> None:
    assert gssapi.local_realm() == "SOCKS.TEST"


# --auth gssapi.


def test_as_the_operator_says_it(realm: Realm) -> None:
    checker: Any = makeChecker(f"gssapi:service=socks,rcmd:keytab={realm.keytab}:protection=confidentiality")
    (method,) = checker.methods()
    assert method.protection is Protection.CONFIDENTIALITY
    found: list[Any] = []
    Portal(Users(), [checker]).login(GSSAPIName("bob@SOCKS.TEST"), None, ISOCKSUser).addBoth(found.append)
    assert found[0][1].name == "bob"


def test_whole_principals(realm: Realm) -> None:
    checker: Any = makeChecker(f"gssapi:keytab={realm.keytab}:realm=keep")
    assert checker.requestAvatarId(GSSAPIName("bob@SOCKS.TEST")) == "bob@SOCKS.TEST"
    assert checker.methods()[0].protection is Protection.INTEGRITY


def test_a_relative_path(
    realm: Realm, bob: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """twistd goes elsewhere once it has read its options."""
    directory, name = os.path.split(realm.keytab)
    monkeypatch.chdir(directory)
    checker: Any = makeChecker(f"gssapi:keytab={name}")
    monkeypatch.chdir(tmp_path)
    assert Conversation(checker.methods()[0].acceptor).hear(Initiator(bob).first())


def test_the_keytab_of_the_system(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_KTNAME", realm.keytab)
    assert makeChecker("gssapi")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("gssapi:protektion=none", "protektion=none is not service= or keytab= or "),
        ("gssapi:rcmd", "rcmd is not service= or "),
        ("gssapi:keytab=", "keytab= has no value"),
        ("gssapi:realm=keep:realm=strip", "realm= is there twice"),
        ("gssapi:realm=lower", "realm=lower is none of strip, keep"),
        ("gssapi:protection=2", "protection=2 is none of none, optional, integrity, confidentiality"),
        ("gssapi:service=rcmd,", "service=rcmd, is not a list of services"),
        ("gssapi:service=rcmd/host", "service=rcmd/host is not a list of services"),
        ("gssapi:keytab=/nonexistent", "keytab=/nonexistent: it cannot be read: No such file"),
        ("gssapi:keytab={keytab}:service=imap", "no key for service=imap: .*No key table entry found"),
        ("gssapi", "the system's keytab: no key for service=rcmd,socks: "),
    ],
)
def test_arguments_that_make_no_sense(realm: Realm, arguments: str, reason: str) -> None:
    with pytest.raises(InvalidAuthArgumentString, match=reason):
        makeChecker(arguments.format(keytab=realm.keytab))


def test_a_machine_without_a_realm(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults]\ndns_lookup_realm = false\n")
    monkeypatch.setenv("KRB5_CONFIG", str(config))
    with pytest.raises(InvalidAuthArgumentString, match=r"realm=strip: krb5\.conf must have a default_realm"):
        makeChecker(f"gssapi:keytab={realm.keytab}")


def test_without_the_library(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.delitem(sys.modules, "socksproxy.auth.checkers.gssapi")
    monkeypatch.delattr("socksproxy.auth.checkers.gssapi")
    with pytest.raises(InvalidAuthArgumentString, match=r"the extra \[gssapi\] is not installed"):
        makeChecker(f"gssapi:keytab={realm.keytab}")


def test_texts_for_a_log(acceptor: gssapi.ContextAcceptor) -> None:
    """Both statuses on one line, though the library's have full stops and gaps."""
    with pytest.raises(library.raw.GSSError) as caught:
        library.raw.acquire_cred_from({b"keytab": os.devnull.encode()}, usage="accept")
    text = gssapi.status_text(caught.value)
    assert text == printable(text)
    assert text.startswith("No credentials were supplied")
    assert "/dev/null" in text
