"""A certificate for localhost that the gRPC clients of the test processes trust."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def _certificate() -> tuple[bytes, bytes]:
    """Return a private key and a self-signed certificate for localhost, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, made.public_bytes(Encoding.PEM)


_FOLDER = tempfile.TemporaryDirectory(prefix="tls-")
_ROOTS = Path(_FOLDER.name, "roots.pem")
_KEY, _CHAIN = _certificate()
_ROOTS.write_bytes(_CHAIN)


def trust() -> None:
    """Trust the certificate, here and in child processes; gRPC reads this once, with the first channel that has TLS."""
    os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(_ROOTS)


def server_credentials() -> grpc.ServerCredentials:
    """Return the credentials of a server on localhost."""
    return grpc.ssl_server_credentials([(_KEY, _CHAIN)])
