"""The form of join tokens."""

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.tokens import Token, TokenKind

SECRET = "s" * 43
TEXT = f"jt1.0123456789abcdef.{SECRET}.{'a' * 64}"


def test_token_is_read_and_written():
    token = Token.parse(f" {TEXT}\n")
    assert (token.kind, token.id, token.root_sha256) == (
        TokenKind.JOIN,
        "0123456789abcdef",
        "a" * 64,
    )
    assert token.reveal() == TEXT


def test_deployment_credential_has_the_same_form():
    assert Token.parse(TEXT.replace("jt1", "dc1")).kind is TokenKind.DEPLOYMENT


def test_secret_shows_in_no_representation():
    assert SECRET not in repr(Token.parse(TEXT))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jt1",
        TEXT[:-1],
        TEXT + "a",
        TEXT.replace("jt1", "jt2"),
        TEXT.replace("a" * 64, "A" * 64),
        TEXT.replace("0123", "../."),
        TEXT + ".x",
    ],
)
def test_other_text_is_refused_without_repeating_it(text):
    with pytest.raises(ConfigurationError, match="no join token") as caught:
        Token.parse(text)
    assert SECRET not in str(caught.value)
