"""One record: its canonical bytes, the hash that chains it to the one before, and its reading.

The hash is SHA-256 over the canonical JSON (RFC 8785) of the record without `hash`; `prev` is the
hash of the record before. Empty members are left out.
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from operator import itemgetter

import msgspec
from pydantic import JsonValue

from hivemesh_platform.audit.model import AuditEvent

VERSION = 1
GENESIS = "0" * 64  # `prev` of the first record
MAX_TEXT = 1024  # characters of one member: what a caller writes does not fill the disk
MAX_PARAMETERS = 64
MAX_NAME = 64  # characters of a parameter's name
MAX_LINE = 256 * 1024
_HASH = b',"hash":"'
_NO_TEXT = frozenset({"count", "params_hmac", "policy_version", "v"})
_ALWAYS = frozenset({"actor", "action"})
_BEFORE_HASH = frozenset({"action", "actor", "address", "count", "decision"})  # in order of names


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it is read."""

    v: int
    seq: int
    ts: str
    actor: str
    action: str
    decision: str
    prev: str
    hash: str
    object: str = ""
    reason: str = ""
    rule: str = ""
    on_behalf_of: str = ""
    run: str = ""
    serial: str = ""
    address: str = ""
    policy_version: int = 0
    request_id: str = ""
    trace_id: str = ""
    tenant: str = "default"
    count: int = 1
    params_hmac: dict[str, str] = {}


_DECODER = msgspec.json.Decoder(Record)
_ENCODER = msgspec.json.Encoder(order="sorted")  # canonical: records hold text and whole numbers
_DUMP = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def members(event: AuditEvent, at: datetime, key: bytes, count: int = 1) -> dict[str, JsonValue]:
    """The members of a record but for its place in the chain."""
    found: dict[str, JsonValue] = {
        "action": event.action,
        "actor": event.actor,
        "address": event.address,
        "count": count if count > 1 else 0,
        "decision": event.decision,
        "object": event.target,
        "on_behalf_of": event.on_behalf_of,
        "params_hmac": _hashed(event, key),
        "policy_version": event.policy_version,
        "reason": event.reason,
        "request_id": event.request_id,
        "rule": event.rule,
        "run": event.run,
        "serial": event.serial,
        "tenant": event.tenant if event.tenant != "default" else "",
        "trace_id": event.trace_id,
        "ts": time_text(at),
        "v": VERSION,
    }
    return {
        name: value if name in _NO_TEXT else _text(str(value))
        for name, value in found.items()
        if value or name in _ALWAYS
    }


def line(found: dict[str, JsonValue], seq: int, prev: str) -> tuple[bytes, str]:
    """The bytes of a record at its place in the chain, without the newline, and its hash."""
    head = _ENCODER.encode({name: found[name] for name in found if name in _BEFORE_HASH})
    rest = {name: found[name] for name in found if name not in _BEFORE_HASH}
    tail = _ENCODER.encode({**rest, "seq": seq, "prev": prev})
    own = hashlib.sha256(b"%b,%b" % (head[:-1], tail[1:])).hexdigest()
    return b'%b,"hash":"%b",%b' % (head[:-1], own.encode("ascii"), tail[1:]), own


def read(data: bytes) -> Record | None:
    """Read a line; None where it is no record."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def intact(data: bytes, record: Record) -> bool:
    """Whether the hash of a record fits its bytes."""
    # No string can hold these bytes, for its quotes are escaped, and all members before are strings.
    at = data.find(_HASH)
    start, end = at + len(_HASH), at + len(_HASH) + 64
    if at < 0 or data[start:end] != record.hash.encode("ascii", "replace"):
        return False
    return hashlib.sha256(data[:at] + data[end + 1 :]).hexdigest() == record.hash


def parameter_hmac(key: bytes, name: str, value: object) -> str:
    """What the trail keeps of one parameter."""
    try:
        text = _DUMP([name, value])
    except (TypeError, ValueError, RecursionError):  # no JSON: a record must not fail of it
        text = repr([name, value])
    return hmac.digest(key, text.encode(errors="replace"), "sha256").hex()


def time_text(at: datetime) -> str:
    """Times as records hold them; of equal length, so that they sort as text."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _hashed(event: AuditEvent, key: bytes) -> dict[str, JsonValue]:
    found = sorted(
        ((str(name), value) for name, value in event.parameters.items()), key=itemgetter(0)
    )
    kept = found[:MAX_PARAMETERS]
    return {_text(name, MAX_NAME): parameter_hmac(key, name, value) for name, value in kept}


def _text(value: str, limit: int = MAX_TEXT) -> str:
    """Text that can be written: bounded, and without halves of surrogate pairs."""
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    return cut.encode(errors="replace").decode()
