"""
Questions to a DNS server, and its answers (RFC 1035, section 4). Pure: bytes in, values out.

An answer counts only if it belongs to the question (RFC 5452, section 9.1): it is a response with the same
question, and the owner of its records is the name in the question, or a name to which CNAMEs lead from there.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdatatype import RdataType

#: CNAMEs in one answer that are followed.
MOST_ALIASES = 16
#: Bytes of the header.
HEADER = 12

A, AAAA, PTR = RdataType.A, RdataType.AAAA, RdataType.PTR

# dnspython imports the module of a type with the first record of the type, and a client would wait for it.
for _type in (A, AAAA, PTR, RdataType.CNAME, RdataType.SOA, RdataType.OPT):
    dns.rdata.get_rdata_class(dns.rdataclass.IN, _type)


class Outcome(Enum):
    """The kind of an answer."""

    #: The name exists, with records of the type or without.
    ANSWERED = "answered"
    #: There is no such name (NXDOMAIN).
    NO_SUCH_NAME = "no such name"
    #: The server cannot answer, or refuses.
    FAILED = "failed"
    #: The whole answer must be asked for by TCP.
    TRUNCATED = "truncated"


class Answer(NamedTuple):
    """
    An answer.

    :ivar outcome: the kind of the answer.
    :ivar records: literal addresses, or names; empty unless the outcome is :attr:`Outcome.ANSWERED`.
    :ivar ttl: the seconds for which the records hold, with the CNAMEs that lead to them.
    """

    outcome: Outcome
    records: tuple[str, ...] = ()
    ttl: int = 0


class Question(NamedTuple):
    """
    A question.

    :ivar name: the name.
    :ivar type: the type of records.
    """

    name: dns.name.Name
    type: RdataType


def question_for(name: str, type: RdataType) -> Question:
    """
    The question for the records of *name*.

    :param name: a name in ASCII, absolute with and without a dot at its end.
    :raises ValueError: when the DNS has no such names.
    """
    try:
        return Question(dns.name.from_text(name, dns.name.root), type)
    except dns.exception.DNSException as problem:
        raise ValueError(str(problem)) from None


def build_query(question: Question) -> bytes:
    """
    A query with the id 0, without EDNS.

    EDNS would save some queries by TCP. Without it no answer comes in fragments, which can be forged
    (RFC 9715).
    """
    query = dns.message.make_query(question.name, question.type, use_edns=False, id=0)
    return query.to_wire()


def with_id(query: bytes, id: int) -> bytes:
    """*query* with the id *id*."""
    return id.to_bytes(2, "big") + query[2:]


def read_answer(data: bytes, question: Question) -> Answer | None:
    """
    The answer in *data* to *question*; None: there is none. The caller checks the id.

    :param data: a whole message.
    """
    try:
        head = dns.message.from_wire(data, question_only=True)
        if not _answers(head, question):
            return None
        if head.flags & dns.flags.TC:
            return Answer(Outcome.TRUNCATED)
        if head.rcode() == dns.rcode.NXDOMAIN:
            return Answer(Outcome.NO_SUCH_NAME)
        if head.rcode() != dns.rcode.NOERROR:
            return Answer(Outcome.FAILED)
        return _found(dns.message.from_wire(data), question)
    except Exception:
        # Whatever the library raises for bytes from the network, they are no answer.
        return None


def _answers(head: dns.message.Message, question: Question) -> bool:
    if not head.flags & dns.flags.QR or head.opcode() != dns.opcode.QUERY or len(head.question) != 1:
        return False
    (asked,) = head.question
    return (asked.name, asked.rdtype, asked.rdclass) == (question.name, question.type, dns.rdataclass.IN)


def _found(message: dns.message.Message, question: Question) -> Answer | None:
    """The answer in *message* to *question*; None: it has records of names that do not belong there."""
    names = [question.name]
    ttls: list[int] = []
    while len(names) <= MOST_ALIASES + 1:
        found = message.get_rrset(message.answer, names[-1], dns.rdataclass.IN, question.type)
        if found is not None:
            ttls.append(found.ttl)
            records = tuple(record.to_text().removesuffix(".") for record in found)
            return Answer(Outcome.ANSWERED, records, min(ttls))
        alias = message.get_rrset(message.answer, names[-1], dns.rdataclass.IN, dns.rdatatype.CNAME)
        if alias is None:
            return None if _has_others(message, question, names) else Answer(Outcome.ANSWERED)
        if alias[0].target in names:
            return None
        names.append(alias[0].target)
        ttls.append(alias.ttl)
    return Answer(Outcome.ANSWERED)


def _has_others(message: dns.message.Message, question: Question, names: list[dns.name.Name]) -> bool:
    """Whether *message*, which has no record for *question*, has records that no honest server adds."""
    # A DNAME has the name of a parent (RFC 6672); the CNAME beside it belongs to the question.
    strange = any(
        records.rdtype != dns.rdatatype.DNAME
        and (records.name not in names or records.rdclass != dns.rdataclass.IN)
        for records in message.answer
    )
    aside = any(
        records.name == question.name and records.rdtype == question.type for records in message.additional
    )
    return strange or aside
