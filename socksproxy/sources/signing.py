"""
Signatures (Ed25519, RFC 8032) that a configuration carries in its last line, a comment of TOML.

Strategy: the signature goes wherever the file goes. The time of the signature is signed, too: who can
replace the file, and has no key, cannot bring an older one back.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime, timezone

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from .found import SourceProblem

_LINE = re.compile(
    rb"(?P<mark># signed: (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)) "
    rb"(?P<signature>[A-Za-z0-9+/]{86}==)"
)


def public_key(pem: bytes) -> Ed25519PublicKey:
    """
    The key in *pem*, as ``openssl pkey -pubout`` writes it.

    :raises SourceProblem: when there is none.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise SourceProblem("not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SourceProblem("not a public key of Ed25519")
    return key


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """
    The key in *pem*, as ``openssl genpkey -algorithm ed25519`` writes it.

    :raises SourceProblem: when there is none.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SourceProblem("not a private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SourceProblem("not a private key of Ed25519")
    return key


def signed(content: bytes, key: Ed25519PrivateKey, now: datetime) -> bytes:
    """
    *content* with a signature, in place of one that it has.

    :param now: the time.
    """
    before, match = _parted(content)
    content = before if match is not None else content
    if content and not content.endswith(b"\n"):
        content += b"\n"
    time = now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
    message = content + b"# signed: " + time
    return b"%b %b\n" % (message, base64.b64encode(key.sign(message)))


def check_signature(content: bytes, key: Ed25519PublicKey) -> str:
    """
    See that *content* has the signature of *key*.

    :returns: when it was signed. A text that is greater is a later time.
    :raises SourceProblem: when it has none, or a wrong one.
    """
    before, match = _parted(content)
    if match is None:
        raise SourceProblem('has no signature: the last line must be that of "socksproxy sign"')
    try:
        key.verify(base64.b64decode(match["signature"]), before + match["mark"])
    except (InvalidSignature, binascii.Error):
        raise SourceProblem("the signature does not fit") from None
    return match["time"].decode("ascii")


def _parted(content: bytes) -> tuple[bytes, re.Match[bytes] | None]:
    """What is before the last line, and the signature that the last line is."""
    before, newline, last = content.rstrip(b"\r\n").rpartition(b"\n")
    return before + newline, _LINE.fullmatch(last)
