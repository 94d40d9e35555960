"""Signed and sealed documents: who can make one, and what else is refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.trust.jws import (
    SignatureInvalidError,
    SigningKey,
    is_sealed,
    unverified,
    verify,
)

TYPE = "hivemesh-ticket"
PAYLOAD = b'{"a":1}'


@pytest.fixture
def key():
    return SigningKey(Ed25519PrivateKey.generate())


def test_a_signed_document_is_read_with_its_public_key(key):
    token = key.sign(PAYLOAD, TYPE)
    assert verify(token, {key.public.id: key.public}, TYPE) == PAYLOAD
    assert unverified(token, TYPE) == PAYLOAD
    assert not is_sealed(token)


def test_a_sealed_document_is_read_by_its_maker_alone(key):
    token = key.seal(PAYLOAD)
    assert is_sealed(token)
    assert key.unseal(token) == PAYLOAD
    assert unverified(token, TYPE) == PAYLOAD
    with pytest.raises(SignatureInvalidError):
        verify(token, {key.public.id: key.public}, TYPE)
    with pytest.raises(SignatureInvalidError):
        SigningKey(Ed25519PrivateKey.generate()).unseal(token)


@pytest.mark.parametrize("token", ["", "a", ".", "a.b.c.d", "\u00e4.b", "a.b"])
def test_what_was_not_sealed_is_refused(key, token):
    with pytest.raises(SignatureInvalidError):
        key.unseal(token)


def test_every_touched_character_breaks_a_seal(key):
    token = key.seal(PAYLOAD)
    for place, character in enumerate(token):
        other = "A" if character != "A" else "B"
        with pytest.raises(SignatureInvalidError):
            key.unseal(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("token", ["", "a", "a.b.c.d", ".e30.x", "e30.e30.x"])
def test_what_has_no_right_header_is_not_even_read(token):
    with pytest.raises(SignatureInvalidError):
        unverified(token, TYPE)
