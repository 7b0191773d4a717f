"""
TLS certificates of clients: how a listener asks for one, and the user's name in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet import ssl
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from ...errors import NotAuthenticated, describe
from ...runtime.files import read_regular_file
from ...twisted_internals import tls_options_of
from ...values.parsers import one_of
from ..credentials import Certificate, ICertificate
from .arguments import arguments

#: Gives all names of one kind in a certificate.
Names = Callable[[x509.Certificate], "list[str]"]


def ask_for_certificates(endpoint: object, ca_file: str) -> bool:
    """
    Have *endpoint* ask its clients for a certificate, before it listens.

    A client need not have a certificate. A certificate that is not valid, or that no authority in *ca_file*
    has signed, ends the handshake.

    :param endpoint: an endpoint with TLS, as ``ssl:`` makes it. Behind ``haproxy:`` certificates are the
        balancer's.
    :param ca_file: a file with the certificates of authorities, in PEM.
    :returns: whether *endpoint* asks; False: it is without TLS, or of a kind that we do not know.
    :raises InvalidAuthArgumentString: when there are no such certificates, or *endpoint* asks for those of
        another file already: then it would not be known which authority has vouched for a client.
    """
    options = tls_options_of(endpoint)
    if not isinstance(options, ssl.CertificateOptions):
        return False
    authorities = _authorities(ca_file)
    if options.verify and [known.to_cryptography() for known in options.caCerts or ()] != authorities:
        raise InvalidAuthArgumentString(
            f"tls: ca={ca_file} comes second, and one file has to name all authorities"
        )
    # Its context, with an id of sessions that certificates need, is made of these when it listens.
    options.caCerts = [X509.from_cryptography(authority) for authority in authorities]
    options.trustRoot = ssl.trustRootFromCertificates(map(ssl.Certificate, options.caCerts))
    options.verify = True
    options.requireCertificate = False
    return True


@implementer(ICredentialsChecker)
class CertificateChecker:
    """
    Finds the user's name in a certificate that the listener has verified.

    :param ca_file: the authorities whose certificates the listener accepts: see :func:`ask_for_certificates`.
    :param name: where the name stands, one of :data:`NAMES`.
    """

    credentialInterfaces = (ICertificate,)

    def __init__(self, ca_file: str, name: str = "subject") -> None:
        self.ca_file = ca_file
        self._kind = name
        self._names = NAMES[name]

    def requestAvatarId(self, credentials: Certificate) -> Deferred[Any]:
        return execute(self._name, credentials.certificate)

    def _name(self, certificate: X509) -> str:
        # TLS may have resumed a session that began before the certificate expired.
        if certificate.has_expired():
            raise NotAuthenticated("the client's certificate has expired")
        try:
            names = set(self._names(certificate.to_cryptography()))
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise NotAuthenticated("the client's certificate cannot be read") from None
        if len(names) != 1:
            number = "several names" if names else "no name"
            raise NotAuthenticated(f"the client's certificate has {number} of the kind {self._kind}")
        name = names.pop()
        if not name or not name.isprintable() or "*" in name:
            raise NotAuthenticated("the name in the client's certificate is not one of a user")
        return name


def _subject(certificate: x509.Certificate) -> list[str]:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value if isinstance(name.value, str) else "" for name in found]


def _alternatives(*kinds: Any) -> Names:
    def names(certificate: x509.Certificate) -> list[str]:
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return []
        return [str(name) for kind in kinds for name in extension.value.get_values_for_type(kind)]

    return names


#: Where a user's name can stand in a certificate.
NAMES: dict[str, Names] = {
    "subject": _subject,
    "email": _alternatives(x509.RFC822Name),
    "dns": _alternatives(x509.DNSName),
    "uri": _alternatives(x509.UniformResourceIdentifier),
    "san": _alternatives(x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier),
}


def _authorities(ca_file: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_regular_file(ca_file).data)
    except OSError as problem:
        raise InvalidAuthArgumentString(f"tls: ca={ca_file}: {describe(problem)}") from None
    except ValueError:
        raise InvalidAuthArgumentString(f"tls: ca={ca_file} has no certificates in PEM") from None


def make_checker(argument: str) -> CertificateChecker:
    """
    The checker of ``--auth tls:ca=FILE[:name=subject|email|dns|uri|san]``.

    :raises InvalidAuthArgumentString: when *argument* is something else.
    """
    given = arguments("tls", argument, {"ca": str, "name": one_of(NAMES, f"none of {', '.join(NAMES)}")})
    if "ca" not in given:
        raise InvalidAuthArgumentString("tls: ca=FILE must name the authorities whose certificates count")
    _authorities(given["ca"])
    return CertificateChecker(given["ca"], given.get("name", "subject"))
