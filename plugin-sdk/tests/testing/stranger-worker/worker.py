"""A worker written from docs/reference/protocol.md alone: nothing of Hivemesh is imported.

It serves one map, `stranger.count@1`. It lives as long as its first certificate.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FOLDER = Path(__file__).parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
NAME, VERSION = MANIFEST["metadata"]["name"], MANIFEST["metadata"]["version"]
CAPABILITY, SLOTS = "stranger.count@1", 8
STARTED = time.monotonic()
KEY = re.compile(r"[A-Za-z0-9_.-]{1,256}")
TITLES = {
    "malformed": (400, 1001),
    "not-found": (404, 1003),
    "method-not-allowed": (405, 1004),
    "not-authorized": (403, 1105),
    "signature-invalid": (401, 1730),
    "ticket-missing": (401, 1731),
    "ticket-invalid": (401, 1732),
    "ticket-expired": (401, 1733),
    "ticket-not-yet-valid": (401, 1734),
    "data-class-exceeded": (403, 1736),
    "unknown-capability": (404, 1201),
    "idempotency-mismatch": (422, 1202),
    "stale-attempt": (409, 1203),
    "stale-reader": (409, 1204),
    "execution-unknown": (404, 1205),
    "overloaded": (429, 1206),
    "draining": (503, 1207),
    "options-invalid": (422, 1214),
    "input-invalid": (422, 1215),
}


class RefusalError(Exception):
    """A refusal."""

    def __init__(self, slug, detail="", *, errors=(), headers=None):
        super().__init__(slug)
        status, code = TITLES[slug]
        self.headers = headers or {}
        self.document = {
            "type": f"urn:hivemesh:problem:{slug}",
            "title": slug.replace("-", " "),
            "status": status,
            "code": f"HM-{code}",
            "detail": detail,
            "errors": list(errors),
        }


# Section 6: enrolment


def join():
    """Show the token, get a certificate; returns key, chain, root, the instance's name and those who sign."""
    token = os.read(int(os.environ["HIVEMESH_TOKEN_FD"]), 4096).decode().split("\n")[0]
    address = urlsplit(os.environ["HIVEMESH_ENROLMENT"])
    root = announced_root(address, token.rsplit(".", 1)[1])
    names = x509.load_der_x509_certificate(root).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    trust_domain = uri.removeprefix("spiffe://")
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    body = {"token": token, "csr": csr.decode(), "worker": NAME, "version": VERSION}
    body["manifest_digest"] = digest()
    answer = call(address, client_context(root), trust_domain, "POST", "/v1/enrol", body)
    signers = signers_of(answer["bundle"])
    return key, answer["certificate_chain"], root, trust_domain, answer["instance"], signers


def announced_root(address, fingerprint):
    """The certificate of the shown chain that the token names; this handshake trusts nobody."""
    context = client_context(None)
    with socket.create_connection((address.hostname, address.port)) as plain:
        tls = context.wrap_socket(
            plain, server_hostname="enrolment.invalid", do_handshake_on_connect=False
        )
        try:
            tls.do_handshake()
        except ssl.SSLCertVerificationError:
            chain = tls._sslobj.get_unverified_chain()
    for certificate in chain:
        der = ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        if hashlib.sha256(der).hexdigest() == fingerprint:
            return der
    raise SystemExit("another installation answers there")


def client_context(root):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if root is not None:
        context.load_verify_locations(cadata=root)
    return context


def call(address, context, trust_domain, method, path, body=None):
    """One request to the platform."""
    connection = HTTPConnection(address.hostname, address.port, timeout=10)
    plain = socket.create_connection((address.hostname, address.port))
    name = f"platform.{trust_domain}"
    connection.sock = context.wrap_socket(plain, server_hostname=name)
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status >= 300:
        raise SystemExit(f"{path}: {answer.status} {content.decode()}")
    return json.loads(content) if content else None


def digest():
    def whole(value):
        if isinstance(value, dict):
            return {name: whole(below) for name, below in value.items()}
        if isinstance(value, list):
            return [whole(below) for below in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    text = json.dumps(whole(MANIFEST), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# Section 3: steps


class Steps:
    """One entry per key; a map of words is over before anybody can ask."""

    def __init__(self):
        self.entries = {}
        self.draining = False

    def put(self, key, body):
        request, rest = parsed(body)
        attempt, epoch, kind = request["attempt"], request["epoch"], request["kind"]
        capability, parameters = request["capability"], request.get("parameters", {})
        if capability != CAPABILITY:
            raise RefusalError("unknown-capability", capability)
        same = hashlib.sha256(json.dumps([kind, parameters]).encode() + rest).digest()
        entry = self.entries.get(key)
        if entry is not None:
            if entry["digest"] != same:
                raise RefusalError("idempotency-mismatch")
            if attempt < entry["attempt"]:
                raise RefusalError("stale-attempt")
            if attempt == entry["attempt"] or kind == "call":
                entry["attempt"] = attempt
                return entry
        if self.draining:
            raise RefusalError("draining", headers={"retry-after": "1"})
        unknown = [name for name in parameters if name != "unit"]
        if unknown:
            errors = [{"pointer": f"/{name}", "message": "unknown option"} for name in unknown]
            raise RefusalError("options-invalid", errors=errors)
        if kind not in {"call", "map"}:
            raise RefusalError("input-invalid", f"a map has no step {kind!r}")
        entry = {"attempt": attempt, "digest": same, "epoch": epoch, "kind": kind}
        entry |= {"execution": os.urandom(12).hex(), "events": compute(kind, rest)}
        self.entries[key] = entry
        return entry

    def events(self, key, query):
        entry = self.find(key)
        if query["execution"] != entry["execution"]:
            raise RefusalError("execution-unknown")
        if int(query["epoch"]) < entry["epoch"]:
            raise RefusalError("stale-reader")
        entry["events"] = [one for one in entry["events"] if one[0] > int(query["after"])]
        if not entry["events"]:
            del self.entries[key]
        return entry

    def find(self, key):
        if key not in self.entries:
            raise RefusalError("execution-unknown")
        return self.entries[key]

    def delete(self, key, attempt):
        if attempt < self.find(key)["attempt"]:
            raise RefusalError("stale-attempt")
        return status_of(key, self.entries.pop(key))


def parsed(body):
    """Section 3.1: one line of JSON, then as many bytes as it announces."""
    line, separator, rest = body.partition(b"\n")
    try:
        request = json.loads(line)
        announced = sum(part["bytes"] for part in request.get("inputs", []))
        complete = {"capability", "kind", "attempt", "epoch"} <= request.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusalError("malformed", str(error)) from error
    if not (separator and complete and announced == len(rest)):
        raise RefusalError("malformed", "the line or its inputs are not complete")
    return request, rest


def compute(kind, data):
    """The events: number and bytes."""
    good, events = [], []
    for position, line in enumerate(data.splitlines() or [b""]):
        try:
            good.append({"words": len(json.loads(line)["text"].split())})
        except (ValueError, TypeError, KeyError) as error:
            rejected = {"type": "rejected", "reason": "input-invalid", "detail": str(error)}
            events.append((rejected | {"position": position}, b""))
    if kind == "call" and not good:
        problem = RefusalError("input-invalid").document
        events = [({"type": "problem", "problem": problem}, b"")]
    elif kind == "call":
        events.append(({"type": "result"}, json.dumps(good[0]).encode()))
    else:
        body = b"".join(json.dumps(one).encode() + b"\n" for one in good)
        events.append(({"type": "records", "count": len(good)}, body))
        events.append(({"type": "result"}, b""))
    return [(no, frame(no, event, body)) for no, (event, body) in enumerate(events, 1)]


def frame(no, event, body):
    event = {**event, "no": no}
    if body or event["type"] == "records":
        event |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(event).encode() + b"\n" + body


def status_of(key, entry):
    return {
        "key": key,
        "execution": entry["execution"],
        "attempt": entry["attempt"],
        "epoch": entry["epoch"],
        "capability": CAPABILITY,
        "kind": entry["kind"],
        "state": "ended",
        "last_event": entry["events"][-1][0],
        "idle_s": 0.0,
        "executor_cpu_s": 0.0,
        "buffered_bytes": sum(len(data) for _, data in entry["events"]),
    }


# Section 3.7: tickets

HEAD = base64.urlsafe_b64encode(b'{"alg":"EdDSA","typ":"hivemesh-ticket"}').decode().rstrip("=")


class Tickets:
    """What the platform allows; `signers` are its keys by their ids, from the trust bundle."""

    def __init__(self, identity, signers):
        self.identity = identity
        self.signers = signers

    def shown(self, peer, kind, key, headers):
        """The claims, if the peer may use them for this step."""
        token = headers.get("hivemesh-ticket", "")
        if not token:
            raise RefusalError("ticket-missing")
        claims = self.read(token, check_signature=kind != "platform")
        if time.time() >= claims["exp"]:
            raise RefusalError("ticket-expired")
        if time.time() < claims["iat"] - 60:
            raise RefusalError("ticket-not-yet-valid")
        if NAME not in claims["aud"]:
            raise RefusalError("not-authorized", "the ticket is for others")
        if kind == "platform":
            holder, step = self.identity, key
        else:
            holder, step = peer, key.rpartition(".")[0]
        if claims["azp"] != holder or claims["step"] != step:
            raise RefusalError("not-authorized", "the ticket is one of another caller or step")
        return claims

    def check_request(self, claims, kind, request):
        """The capability and the attempt that it names are those that are asked for."""
        allowed = [claims["cap"]] if kind == "platform" else claims.get("calls", [])
        if request["capability"] not in allowed or request["attempt"] != claims["attempt"]:
            raise RefusalError("not-authorized", "the ticket is for something else")
        if claims.get("data_class", "internal") == "secret":  # our `data_class_max` is personal
            raise RefusalError("data-class-exceeded")

    def read(self, token, *, check_signature):
        """A compact JWS: three parts of base64url; the algorithm is always EdDSA."""
        if token.count(".") == 1 and not check_signature:  # sealed: for the platform alone
            token = f"{HEAD}.{token}"
        try:
            head, payload, signature = token.split(".")
            header, claims = json.loads(unpadded(head)), json.loads(unpadded(payload))
            kind = header["alg"], header["typ"]
        except (ValueError, KeyError, TypeError) as error:
            raise RefusalError("ticket-invalid", str(error)) from error
        if kind != ("EdDSA", "hivemesh-ticket"):
            raise RefusalError("ticket-invalid", f"this is {kind}")
        if check_signature:
            try:
                signed = f"{head}.{payload}".encode()
                self.signers[header["kid"]].verify(unpadded(signature), signed)
            except (KeyError, ValueError, InvalidSignature) as error:
                raise RefusalError("signature-invalid") from error
        return claims


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signers_of(bundle):
    """The Ed25519 keys of a trust bundle (section 7)."""
    return {
        key["kid"]: Ed25519PublicKey.from_public_bytes(unpadded(key["x"]))
        for key in bundle["keys"]
        if key["use"] == "jwt-svid"
    }


# Section 2: what a worker serves


class Server:
    def __init__(self, instance, trust_domain, signers):
        self.steps = Steps()
        identity = f"spiffe://{trust_domain}/worker/{NAME}/{instance}"
        self.tickets = Tickets(identity, signers)
        self.instance = instance
        self.trust_domain = trust_domain

    async def serve(self, reader, writer):
        names = writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"]
        (peer,) = (value for kind, value in names if kind == "URI")
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = request.split(" ")
                pairs = (line.split(": ", 1) for line in lines if line)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                writer.write(self.answer(peer, method, target, headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def answer(self, peer, method, target, given, body):
        try:
            status, headers, content = self.route(peer, method, target, given, body)
        except RefusalError as problem:
            status, content = problem.document["status"], json.dumps(problem.document).encode()
            headers = {"content-type": "application/problem+json", **problem.headers}
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    def route(self, peer, method, target, headers, body):
        path, _, query = target.partition("?")
        kind = peer.removeprefix(f"spiffe://{self.trust_domain}/").split("/")[0]
        reads = {"/": self.status, "/v1/status": self.status, "/v1/manifest": lambda: MANIFEST}
        if path in reads or path == "/metrics":
            return self.shown(path, reads, kind, method)
        if kind == "user":
            raise RefusalError("not-authorized", peer)
        if (method, path) == ("POST", "/v1/commands"):
            if kind != "platform":
                raise RefusalError("not-authorized", peer)
            self.steps.draining = True
            return self.json(self.status())
        match = re.fullmatch(r"/v1/steps/([^/]*)(/events)?", path)
        if match is None or not KEY.fullmatch(match[1]):
            raise RefusalError("not-found", path)
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        if method == "PUT" or match[2]:  # a step is begun, or read on
            claims = self.tickets.shown(peer, kind, match[1], headers)
            self.check(claims, kind, method, match[1], body)
        elif kind != "platform":  # this worker keeps no account of who has begun what
            raise RefusalError("not-authorized", peer)
        return self.step(method, match[1], match[2], fields, body)

    def shown(self, path, reads, kind, method):
        if method != "GET":
            raise RefusalError("method-not-allowed", headers={"allow": "GET"})
        if kind not in {"platform", "user"}:
            raise RefusalError("not-authorized", kind)
        if path == "/metrics":
            text = b"# TYPE stranger_entries gauge\nstranger_entries %d\n"
            return 200, {"content-type": "text/plain"}, text % len(self.steps.entries)
        return self.json(reads[path]())

    def check(self, claims, kind, method, key, body):
        if method == "PUT":
            self.tickets.check_request(claims, kind, parsed(body)[0])
        elif claims["attempt"] != self.steps.find(key)["attempt"]:
            raise RefusalError("not-authorized", "the ticket is one of another attempt")

    def step(self, method, key, events, fields, body):
        match method, events:
            case "PUT", None:
                return self.page(self.steps.put(key, body))
            case "GET", "/events":
                return self.page(self.steps.events(key, fields))
            case "GET", None:
                return self.json(status_of(key, self.steps.find(key)))
            case "DELETE", None:
                return self.json(self.steps.delete(key, int(fields["attempt"])))
        raise RefusalError("method-not-allowed", headers={"allow": "GET, PUT, DELETE"})

    def page(self, entry):
        headers = {"hivemesh-execution": entry["execution"]}
        headers["content-type"] = "application/vnd.hivemesh.events"
        return 200, headers, b"".join(data for _, data in entry["events"])

    def json(self, document):
        return 200, {"content-type": "application/json"}, json.dumps(document).encode()

    def status(self):
        return {
            "worker": NAME,
            "version": VERSION,
            "instance": self.instance,
            "protocol": 1,
            "draining": self.steps.draining,
            "uptime_s": time.monotonic() - STARTED,
            "cpu": 0.0,
            "memory": 0.1,
            "rss_bytes": 0,
            "slots": {CAPABILITY: {"total": SLOTS, "active": 0}},
            "executions": [],
        }


# Section 5: registration


async def main():
    key, chain, root, trust_domain, instance, signers = join()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = client_context(root)
    context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.load_verify_locations(cadata=root)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with tempfile.NamedTemporaryFile() as file:  # 0600, gone at once
        file.write(pem + chain.encode())
        file.flush()
        for one in (context, client):
            one.load_cert_chain(file.name)
    server = Server(instance, trust_domain, signers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await beat(server, client, port, stop)
    listener.close()


async def beat(server, client, port, stop):
    platform = urlsplit(os.environ["HIVEMESH_PLATFORM"])
    path = f"/v1/instances/{server.instance}"
    registration = {
        "worker": NAME,
        "version": VERSION,
        "manifest_digest": digest(),
        "manifest": MANIFEST,
        "sdk_version": "",
        "protocol": 1,
        "host": "127.0.0.1",
        "port": port,
        "incarnation": os.urandom(8).hex(),
        "slots": {CAPABILITY: SLOTS},
    }

    def say(method, path, body=None):
        address = (platform, client, server.trust_domain)
        return asyncio.to_thread(call, *address, method, path, body)

    await say("PUT", path, registration)
    while not stop.is_set():
        load = {"slots": {CAPABILITY: SLOTS}, "active": {CAPABILITY: 0}, "cpu": 0.0, "memory": 0.1}
        try:
            await say("POST", f"{path}/heartbeat", load)
        except SystemExit as refusal:
            if "instance-unknown" not in str(refusal):
                raise
            await say("PUT", path, registration)
        try:
            async with asyncio.timeout(0.5):
                await stop.wait()
        except TimeoutError:
            continue
    await say("DELETE", path)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
