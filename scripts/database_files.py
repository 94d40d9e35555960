"""Make what the PostgreSQL of docker-compose.postgresql.yml is given: a password and its identity.

python scripts/database_files.py FOLDER UID   makes FOLDER/database, once; undo: delete it

The root signs this one certificate, and its key is thrown away.
"""

import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "postgres"  # the service's name, under which the platforms reach it
SECRETS = "/run/secrets/database"  # where containers find the files
LIFETIME = timedelta(days=3650)
PEM = serialization.Encoding.PEM


def make(folder: Path) -> None:
    """Write the files: `password`, `url`, `root.pem`, and `server.pem` for the server alone."""
    folder.mkdir(parents=True, mode=0o700)
    password = secrets.token_urlsafe(32)
    root, server = _identity()
    address = f"postgresql://hivemesh:{password}@{HOST}/hivemesh?sslrootcert={SECRETS}/root.pem"
    for name, content in (
        ("password", password.encode()),
        ("root.pem", root),
        ("server.pem", server),
        ("url", address.encode()),
    ):
        descriptor = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def _identity() -> tuple[bytes, bytes]:
    root_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hivemesh database")])
    root = (
        _builder(name, name, root_key.public_key(), root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(root_key, hashes.SHA384())
    )
    leaf = (
        _builder(x509.Name([]), name, key.public_key(), root_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .sign(root_key, hashes.SHA384())
    )
    private = key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return root.public_bytes(PEM), private + leaf.public_bytes(PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def main() -> int:
    """Make what is missing, and hand all of it to the images' user; only root may do the latter."""
    folder, uid = Path(sys.argv[1]), int(sys.argv[2])
    made = not (folder / "database").exists()
    if made:
        for part in ("", "postgres", "p1", "p2", "shared", "credentials"):
            (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        make(folder / "database")
        print(f"made {folder / 'database'}", file=sys.stderr)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
    elif made:
        print(f"! fix: sudo chown -R {uid} {folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
