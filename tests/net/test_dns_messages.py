"""What counts as an answer to a question, and what it says."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, strategies as st

from socksproxy.net.dns_messages import (
    AAAA,
    PTR,
    A,
    Answer,
    Outcome,
    build_query,
    question_for,
    read_answer,
    with_id,
)

QUESTION = question_for("Name.test", A)


def response(
    *records: str, change: Callable[[dns.message.Message], object] = bool, asked: str = "name.test. A"
) -> bytes:
    """An answer with *records*, after *change*."""
    name, type = asked.split()
    message = dns.message.make_response(dns.message.make_query(name, type, use_edns=False))
    for record in records:
        owner, kind, data = record.split()
        data = f"{data.removesuffix('.')}." if kind in ("CNAME", "DNAME", "PTR") else data
        message.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", kind, data))
    change(message)
    return message.to_wire()


@pytest.mark.parametrize(
    "name", ["name.test", "name.test.", "-a._b.163.com", "123456789012", "xn--strae-oqa.test"]
)
def test_query(name: str) -> None:
    """RFC 1035, section 4.1: one question, and recursion is desired."""
    question = question_for(name, AAAA)
    query = dns.message.from_wire(with_id(build_query(question), 0xABCD))
    assert query.id == 0xABCD
    assert query.flags == dns.flags.RD
    assert [(q.name, q.rdtype) for q in query.question] == [(question.name, AAAA)]
    assert query.question[0].name.is_absolute()
    assert len(query.to_wire()) < 512


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "a." * 130])
def test_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        question_for(name, A)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([], []),
        (["name.test A 192.0.2.1"], ["192.0.2.1"]),
        (["NAME.TEST A 192.0.2.1", "name.test A 192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (["name.test CNAME a.test", "a.test A 192.0.2.1"], ["192.0.2.1"]),
        # The order does not matter.
        (["b.test A 192.0.2.1", "a.test CNAME b.test", "name.test CNAME a.test"], ["192.0.2.1"]),
        # Records of another owner, another type, and what a CNAME does not lead to.
        (["other.test A 192.0.2.1", "name.test A 192.0.2.2"], ["192.0.2.2"]),
        (["name.test AAAA 2001:db8::1"], []),
        (["name.test CNAME a.test"], []),
        (["name.test CNAME a.test", "a.test AAAA 2001:db8::1"], []),
        (["test DNAME example", "name.test CNAME name.example"], []),
    ],
)
def test_records(records: list[str], found: list[str]) -> None:
    assert read_answer(response(*records), QUESTION) == Answer(
        Outcome.ANSWERED, tuple(found), 60 if found else 0
    )


def test_time_to_live() -> None:
    """The shortest one counts, of the records and of the aliases that lead to them."""

    def change(message: dns.message.Message) -> None:
        message.answer[0].update_ttl(30)

    data = response("name.test CNAME a.test", "a.test A 192.0.2.1", change=change)
    assert read_answer(data, QUESTION) == Answer(Outcome.ANSWERED, ("192.0.2.1",), 30)


@pytest.mark.parametrize(
    "records",
    [
        ["other.test A 192.0.2.66"],
        ["other.test CNAME name.test"],
        ["name.test CNAME a.test", "b.test A 192.0.2.66"],
        ["a.test A 192.0.2.66", "b.name.test A 192.0.2.66"],
        ["name.test CNAME name.test"],
        ["name.test CNAME a.test", "a.test CNAME name.test"],
    ],
)
def test_records_of_others(records: list[str]) -> None:
    """They may be forged: the right answer may still come."""
    assert read_answer(response(*records), QUESTION) is None


@pytest.mark.parametrize(
    ("section", "record", "expected"),
    [
        ("authority", "test. SOA ns.test. root.test. 1 1 1 1 1", Answer(Outcome.ANSWERED)),
        ("additional", "ns.test. A 192.0.2.53", Answer(Outcome.ANSWERED)),
        ("additional", "name.test. A 192.0.2.66", None),
    ],
)
def test_no_data(section: str, record: str, expected: Answer | None) -> None:
    """RFC 2308, section 2.2: there are no records of the type. Those beside the answer are not the answer."""
    owner, kind, data = record.split(maxsplit=2)

    def add(message: dns.message.Message) -> None:
        getattr(message, section).append(dns.rrset.from_text(owner, 60, "IN", kind, data))

    assert read_answer(response(change=add), QUESTION) == expected


@pytest.mark.parametrize(("aliases", "found"), [(16, ("192.0.2.1",)), (17, ())])
def test_many_aliases(aliases: int, found: tuple[str, ...]) -> None:
    names = ["name.test", *(f"a{number}.test" for number in range(aliases))]
    chain = [f"{name} CNAME {target}" for name, target in itertools.pairwise(names)]
    assert read_answer(response(*chain, f"{names[-1]} A 192.0.2.1"), QUESTION) == Answer(
        Outcome.ANSWERED, found, 60 if found else 0
    )


@pytest.mark.parametrize(
    ("type", "asked", "record", "found"),
    [
        (AAAA, "name.test. AAAA", "name.test AAAA 2001:DB8:0::1", "2001:db8::1"),
        (PTR, "name.test. PTR", "name.test PTR Host.test.", "Host.test"),
    ],
)
def test_other_types(type: object, asked: str, record: str, found: str) -> None:
    question = QUESTION._replace(type=type)  # type: ignore[arg-type]
    assert read_answer(response(record, asked=asked), question) == Answer(Outcome.ANSWERED, (found,), 60)


@pytest.mark.parametrize(
    ("rcode", "outcome"),
    [
        (dns.rcode.NXDOMAIN, Outcome.NO_SUCH_NAME),
        (dns.rcode.SERVFAIL, Outcome.FAILED),
        (dns.rcode.REFUSED, Outcome.FAILED),
        (dns.rcode.FORMERR, Outcome.FAILED),
        (dns.rcode.NOTIMP, Outcome.FAILED),
    ],
)
def test_codes(rcode: dns.rcode.Rcode, outcome: Outcome) -> None:
    data = response("name.test A 192.0.2.1", change=lambda message: message.set_rcode(rcode))
    assert read_answer(data, QUESTION) == Answer(outcome)


def test_truncated() -> None:
    """Whatever of the records is there, even half of one."""
    data = response(
        "name.test A 192.0.2.1",
        change=lambda message: setattr(message, "flags", message.flags | dns.flags.TC),
    )
    for length in (len(data), len(data) - 3, len(data) - 10):
        assert read_answer(data[:length], QUESTION) == Answer(Outcome.TRUNCATED)


def _unasked(message: dns.message.Message) -> None:
    message.question.clear()


def _query(message: dns.message.Message) -> None:
    message.flags &= ~dns.flags.QR


def _status(message: dns.message.Message) -> None:
    message.set_opcode(dns.opcode.STATUS)


def _twice(message: dns.message.Message) -> None:
    message.question.append(dns.rrset.from_text("other.test.", 0, "IN", "A"))


@pytest.mark.parametrize("change", [_unasked, _query, _status, _twice])
@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL])
def test_no_answer(change: Callable[[dns.message.Message], object], rcode: dns.rcode.Rcode) -> None:
    """Without a question, not a response, of another kind, or with two questions."""

    def both(message: dns.message.Message) -> None:
        change(message)
        message.set_rcode(rcode)

    assert read_answer(response("name.test A 192.0.2.1", change=both), QUESTION) is None


@pytest.mark.parametrize(
    "asked", ["other.test. A", "name.test. AAAA", "name. A", "x.name.test. A", "name.test. ANY"]
)
def test_another_question(asked: str) -> None:
    assert read_answer(response("name.test A 192.0.2.1", asked=asked), QUESTION) is None


def test_another_class() -> None:
    data = response("name.test A 192.0.2.1")
    end = len(build_query(QUESTION))
    assert read_answer(data[: end - 2] + b"\0\3" + data[end:], QUESTION) is None


def test_garbage() -> None:
    """The right question, and records that make no sense: it is ignored, and the answer is waited for."""
    data = response("name.test A 192.0.2.1")
    for length in range(len(data)):
        assert read_answer(data[:length], QUESTION) is None
    assert read_answer(data + b"x", QUESTION) is None
    assert read_answer(data[:-6] + b"\xff\xff" + data[-4:], QUESTION) is None


@given(st.binary(max_size=100), st.integers(0, 60))
def test_any_bytes(data: bytes, at: int) -> None:
    """No bytes raise anything."""
    read_answer(data, QUESTION)
    whole = response("name.test A 192.0.2.1")
    read_answer(whole[:at] + data + whole[at + len(data) :], QUESTION)
