"""Certificates of one comparison as PEM files, for peers that know nothing of us."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.trust.bundle import Bundle
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import Svid, svid
from hivemesh_sdk.trust.source import IdentitySource

TRUST_DOMAIN = "test.hivemesh.internal"
CALLER_STEP = "bench.caller.1"
SERVER_NAME = f"i1.echo.worker.{TRUST_DOMAIN}"
SERVER_ID = f"spiffe://{TRUST_DOMAIN}/worker/echo/i1"


def write(folder: Path) -> None:
    """Make a CA with one server and one client certificate, and a ticket of the client's step."""
    authority = ThrowawayCA()
    caller = authority.worker("caller", "i1")
    (folder / "signer").write_bytes(authority.signing.public.raw)
    (folder / "ticket").write_text(_ticket(authority, caller))
    for name, identity in (("server", authority.worker()), ("client", caller)):
        leaf = authority.svid(identity)
        (folder / f"{name}.pem").write_text(_chain(leaf))
        key = leaf.key.private_bytes(
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


def _ticket(authority: ThrowawayCA, caller: SpiffeId) -> str:
    """What a step of the caller holds: it may call the capabilities of this comparison."""
    tickets = ThrowawayTickets(authority.signing, str(authority.platform()))
    calls = ["bench.echo@1", "bench.echo_async@1", "bench.hold@1"]
    claims = tickets.claims(
        caller, CALLER_STEP, "bench.call@1", aud=["caller", "echo"], calls=calls
    )
    return tickets.sign(claims)


def _chain(leaf: Svid) -> str:
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in leaf.chain)


def source(folder: Path, name: str) -> IdentitySource:
    """The same certificate as an identity source of ours."""
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    chain = (folder / f"{name}.pem").read_bytes()
    root = ssl.PEM_cert_to_DER_cert((folder / "root.pem").read_text())
    signers = ((folder / "signer").read_bytes(),)
    bundle = Bundle(trust_domain=TRUST_DOMAIN, roots=(root,), signers=signers, sequence=1)
    return IdentitySource(svid(key, chain, TRUST_DOMAIN), bundle)
