"""A web server on loopback with a certificate of a public-looking name, and a name service."""

import gzip
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM
PACKED = {"content-encoding": "gzip"}
ANSWERS = {
    "/bomb": (200, PACKED, gzip.compress(bytes(50_000_000))),
    "/cut": (200, PACKED, gzip.compress(b"abc" * 1000)[:-9]),
    "/trailing": (200, PACKED, gzip.compress(b"x") + bytes(500_000)),
    "/packed": (200, PACKED, gzip.compress(b'{"ok": true}')),
    "/brotli": (200, {"content-encoding": "br"}, b"?"),
    "/large": (200, {}, bytes(2_000_000)),
}


class WebAuthority:
    """Issues server certificates for the names of a test."""

    def __init__(self, folder, *names):
        key, root_key = (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP256R1()),
        )
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])
        root = self._build(subject, subject, root_key.public_key(), root_key, ca=True)
        leaf = self._build(x509.Name([]), subject, key.public_key(), root_key, names=names)
        private = serialization.PrivateFormat.PKCS8
        self.identity = folder / "web.pem"  # key and chain
        self.identity.write_bytes(
            key.private_bytes(PEM, private, serialization.NoEncryption())
            + leaf.public_bytes(PEM)
            + root.public_bytes(PEM)
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.identity)
        self.root = folder / "web-root.pem"
        self.root.write_bytes(root.public_bytes(PEM))
        self.client = ssl.create_default_context(cadata=root.public_bytes(PEM).decode())

    @staticmethod
    def _build(subject, issuer, public_key, signer, *, ca=False, names=()):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .add_extension(_usage(ca=ca), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternative, critical=True)
        return builder.sign(signer, hashes.SHA256())


def _usage(*, ca):
    unused = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
        **unused,
    )


class WebServer:
    """Answers by path: what the tests ask for is in `_Handler`; keeps what it was asked."""

    def __init__(self, context):
        self.requests = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.site = self
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # a client that refuses the certificate
        self.port = self._server.server_address[1]
        self.redirect = "/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Names:
    """A name service whose answers change with every question: the last one stays."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    def __call__(self, host, port):
        self.asked.append(host)
        found = self.answers[host]
        answer = found.pop(0) if len(found) > 1 else found[0]
        return [ip_address(text) for text in ([answer] if isinstance(answer, str) else answer)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        site.requests.append((self.command, self.path, dict(self.headers.items()), body))
        status, headers, content = self._answer(site)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the library's names

    def _answer(self, site):
        if self.path.startswith("/redirect"):
            return int(self.path.partition("=")[2] or 302), {"location": site.redirect}, b""
        return ANSWERS.get(self.path, (200, {"content-type": "text/plain"}, b"hello"))

    def log_message(self, *_):
        pass
