"""Certificates for tests: an authority, and what it signs.  Needs `cryptography`."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pyjiva.transport.tls_sys import TlsFiles

__all__ = ["Authority"]

_LIFE = datetime.timedelta(days=2)


class Authority:
    """Signs certificates for addresses; keeps everything in `place`."""

    def __init__(self, place: Path, name: str = "authority") -> None:
        self.place = place
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = place / f"{name}.pem"
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._begin(self.name, self.key).add_extension(constraint, critical=True)
        self.file.write_bytes(_pem(certificate.sign(self.key, hashes.SHA256())))

    def sign(
        self, name: str, *addresses: str, life: datetime.timedelta = _LIFE, organization: str = ""
    ) -> TlsFiles:
        """A key and a certificate for these IP addresses; Kubernetes reads an organization as a group."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if organization:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        subject = x509.Name(attributes)
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = self._begin(subject, key, life)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        files = TlsFiles(self.place / f"{name}.crt", self.place / f"{name}.key", self.file)
        files.certificate.write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))
        files.key.touch(0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: datetime.timedelta = _LIFE
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * abs(life))
            .not_valid_after(now + life)
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
