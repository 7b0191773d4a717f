"""An authority that signs certificates for tests of TLS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


class Authority:
    """
    Signs certificates.

    :param directory: where it leaves its files.
    :param name: of the authority, and of its file.
    :param above: the authority that has signed its own certificate; None: itself.
    :ivar ca_file: its certificate, in PEM.
    """

    def __init__(self, directory: Path, name: str = "authority", above: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named([name])
        signer = above or self
        self.certificate = (
            _builder(self._name, signer._name, self._key, -_DAY, _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signer._key, hashes.SHA256())
        )
        self.ca_file = directory / f"{name}.pem"
        self.ca_file.write_bytes(_pem(self.certificate))

    def issue(
        self,
        *names: str,
        alternatives: Sequence[x509.GeneralName] = (),
        begins: timedelta = -_DAY,
        ends: timedelta = _DAY,
        usage: Any = CLIENT,
        chain: Sequence[Authority] = (),
    ) -> Path:
        """
        A certificate and its key, in PEM.

        :param names: common names of its subject.
        :param alternatives: its subject's alternative names.
        :param begins: from now, when it is valid; *ends* likewise.
        :param usage: what it is for.
        :param chain: whose certificates come with it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(key, names, alternatives, begins, ends, usage)
        path = self._directory / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + b"".join(map(_pem, [certificate, *(authority.certificate for authority in chain)]))
        )
        return path

    def certify(
        self,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[str],
        alternatives: Sequence[x509.GeneralName] = (),
        begins: timedelta = -_DAY,
        ends: timedelta = _DAY,
        usage: Any = CLIENT,
        more: Sequence[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        """A certificate for *key*, with *more* extensions: see :meth:`issue`."""
        builder = _builder(_named(names), self._name, key, begins, ends)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(names: Sequence[str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now + begins, now + ends
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
