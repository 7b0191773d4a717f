"""The name that a balancer tells."""

from __future__ import annotations

import pytest
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker

from socksproxy.auth.credentials import CertifiedName, ICertifiedName
from socksproxy.errors import NotAuthenticated


@pytest.mark.parametrize("name", ["alice", "Alice Example", "Алиса", "alice@example.org"])
def test_a_name(name: str) -> None:
    """It is the user's, as it came."""
    checker = makeChecker("balancer")
    assert checker.credentialInterfaces == (ICertifiedName,)
    assert checker.requestAvatarId(CertifiedName(name)).result == name


@pytest.mark.parametrize("name", ["a\x1b[31m", "*", "a*", "a\n", "\udcff", "a\0"])
def test_no_name(name: str) -> None:
    """Rules and logs could take it for something else."""
    answer = makeChecker("balancer").requestAvatarId(CertifiedName(name))
    with pytest.raises(NotAuthenticated, match="not one of a user"):
        answer.result.raiseException()
    answer.addErrback(lambda _: None)


def test_an_argument() -> None:
    with pytest.raises(InvalidAuthArgumentString, match="balancer: cn: nothing stands behind balancer"):
        makeChecker("balancer:cn")


def test_what_a_log_shows() -> None:
    assert repr(CertifiedName("a\n")) == "CertifiedName(name='a\\n')"
