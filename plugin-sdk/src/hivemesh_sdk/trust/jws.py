"""Signed documents in compact form: JWS (RFC 7515) with Ed25519 (RFC 8037), and nothing else.

Tickets and policies travel so. The algorithm is fixed here and never read from the document: a
header that names another one, or none, is refused before a key is looked at. What only its maker
reads again is sealed instead, in a form that `verify` refuses.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hivemesh_sdk.errors import NotAuthorizedError

ALGORITHM = "EdDSA"
MAX_BYTES = 1024 * 1024


class SignatureInvalidError(NotAuthorizedError):
    """The document was not signed by a key that is trusted for it."""

    slug = "signature-invalid"


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key and its id, which is a digest of it."""

    id: str
    key: Ed25519PublicKey

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)


class Seal:
    """Marks what its holder will read again itself, at a twentieth of a signature's cost.

    A sealed document is `payload.mac`, both base64url without padding, with HMAC-SHA256 over the
    encoded payload. Nobody else can check it, and nothing else has two parts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        """Without the key."""
        return "Seal(…)"

    def close(self, payload: bytes) -> str:
        """The sealed form of a payload."""
        content = base64.urlsafe_b64encode(payload).rstrip(b"=")
        return f"{content.decode('ascii')}.{_encode(hmac.digest(self._key, content, 'sha256'))}"

    def open(self, token: str) -> bytes:
        """The payload of what this seal has closed.

        Raises:
            SignatureInvalidError: it has not.
        """
        content, _, mac = token.encode("ascii", "replace").partition(b".")
        right = _encode(hmac.digest(self._key, content, "sha256"))
        if not hmac.compare_digest(right.encode("ascii"), mac):
            message = "the seal does not fit the document"
            raise SignatureInvalidError(message)
        return base64.urlsafe_b64decode(content + b"==")


def is_sealed(token: str | bytes) -> bool:
    """Whether a document has the form of a sealed one."""
    return (token.count(".") if isinstance(token, str) else token.count(b".")) == 1


class SigningKey:
    """A private key with the id under which its public half is announced.

    `sealing` is made from it, for documents that only its holder reads again.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.sealing = Seal(hmac.digest(raw, b"hivemesh sealed documents", "sha256"))
        self.public = verify_key(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def __repr__(self) -> str:
        """Without the key."""
        return f"SigningKey({self.public.id})"

    def seal(self, payload: bytes) -> str:
        """Seal a document that only this key's holder reads again."""
        return self.sealing.close(payload)

    def unseal(self, token: str) -> bytes:
        """The payload of what was sealed with this key.

        Raises:
            SignatureInvalidError: it was not.
        """
        return self.sealing.open(token)

    def sign(self, payload: bytes, typ: str) -> str:
        """Sign a payload; `typ` says what it is, and a reader refuses any other."""
        header = msgspec.json.encode(_Header(ALGORITHM, self.public.id, typ))
        content = f"{_encode(header)}.{_encode(payload)}"
        return f"{content}.{_encode(self._key.sign(content.encode('ascii')))}"


def verify_key(raw: bytes) -> VerifyKey:
    """Make a public key from its 32 bytes; its id is the beginning of their SHA-256.

    Raises:
        ValueError: these are no 32 bytes.
    """
    return VerifyKey(sha256(raw).hexdigest()[:16], Ed25519PublicKey.from_public_bytes(raw))


def verify(token: str, keys: Mapping[str, VerifyKey], typ: str) -> bytes:
    """Return the payload of a document that one of `keys` (by id) has signed as a `typ`.

    Raises:
        SignatureInvalidError: malformed, of another kind or algorithm, or not signed by them.
    """
    if len(token) > MAX_BYTES:
        message = "the signed document is too large"
        raise SignatureInvalidError(message)
    content, _, signature = token.rpartition(".")
    head, _, payload = content.partition(".")
    try:
        header = msgspec.json.decode(_decode(head), type=_Header)
    except (ValueError, msgspec.DecodeError) as error:
        message = "this is no signed document"
        raise SignatureInvalidError(message) from error
    if header.alg != ALGORITHM or header.typ != typ:
        message = f"the document is no {typ} signed with {ALGORITHM}"
        raise SignatureInvalidError(message)
    known = keys.get(header.kid)
    if known is None:
        message = "the document is signed by an unknown key"
        raise SignatureInvalidError(message)
    try:
        known.key.verify(_decode(signature), content.encode("ascii"))
        return _decode(payload)
    except (InvalidSignature, ValueError) as error:
        message = "the signature does not fit the document"
        raise SignatureInvalidError(message) from error


def unverified(token: str | bytes, typ: str) -> bytes:
    """Return the payload without looking at the signature.

    Only for a document that the signer itself handed over on an authenticated connection; it
    may be a sealed one as well.

    Raises:
        SignatureInvalidError: malformed, or of another kind or algorithm.
    """
    data = token.encode("ascii", "replace") if isinstance(token, str) else token
    parts = data.split(b".")
    if len(data) > MAX_BYTES or len(parts) not in {2, 3}:
        message = "this is no signed document"
        raise SignatureInvalidError(message)
    if len(parts) == 3 and (parts[0], typ) not in _headers_seen:
        _check_header(parts[0], typ)
    try:
        return base64.urlsafe_b64decode(parts[-2] + b"==")
    except binascii.Error as error:
        message = "this is no signed document"
        raise SignatureInvalidError(message) from error


_headers_seen: set[tuple[bytes, str]] = set()  # so that each is read once
_MAX_HEADERS = 64


def _check_header(text: bytes, typ: str) -> None:
    try:
        header = msgspec.json.decode(_decode(text.decode("ascii")), type=_Header)
    except (ValueError, msgspec.DecodeError) as error:
        message = "this is no signed document"
        raise SignatureInvalidError(message) from error
    if header.alg != ALGORITHM or header.typ != typ:
        message = f"the document is no {typ} signed with {ALGORITHM}"
        raise SignatureInvalidError(message)
    if len(_headers_seen) >= _MAX_HEADERS:
        _headers_seen.clear()
    _headers_seen.add((text, typ))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Strict base64url without padding: one text per sequence of bytes (RFC 7515 section 2)."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if _encode(data) != text:
        message = "not canonical"
        raise ValueError(message)
    return data
