"""Certificates of one comparison as PEM files, for peers that know nothing of us."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.trust.keys import Svid

SERVER_NAME = "i1.echo.worker.test.hivemesh.internal"


def write(folder: Path) -> None:
    """Make a CA with one server and one client certificate."""
    authority = ThrowawayCA()
    for name, identity in (("server", authority.worker()), ("client", authority.platform())):
        svid = authority.svid(identity)
        (folder / f"{name}.pem").write_text(_chain(svid))
        key = svid.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(key)
    (folder / "root.pem").write_text(
        "".join(ssl.DER_cert_to_PEM_cert(root) for root in authority.bundle().roots)
    )


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS 1.3, a client certificate demanded: what a careful author writes by hand."""
    return _context(folder, ssl.PROTOCOL_TLS_SERVER, "server")


def client_context(folder: Path) -> ssl.SSLContext:
    """The client's side of it."""
    return _context(folder, ssl.PROTOCOL_TLS_CLIENT, "client")


def _context(folder: Path, protocol: int, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.load_verify_locations(folder / "root.pem")
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def _chain(svid: Svid) -> str:
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in svid.chain)
