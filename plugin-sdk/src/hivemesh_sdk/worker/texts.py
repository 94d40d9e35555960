"""Makes what the author's code says fit to be sent: valid Unicode, no secret, not too long."""

from hivemesh_sdk.redaction import REDACTOR

_LARGEST = 2**63 - 1  # that every reader can keep


def said(words: object, most: int) -> str:
    """The text of a message, an error or a name, whatever it is.

    Lone surrogates, with which Python reads file names and mail that are no UTF-8, are written as
    escapes: nothing that is sent can hold them.
    """
    try:
        text = str(words)
    except Exception:  # noqa: BLE001 - the author's own class
        text = type(words).__name__
    text = REDACTOR.masked(text)[:most]
    return text.encode("utf-8", "backslashreplace").decode()[:most]


def counted(number: float) -> int:
    """A count that the author's code gives, cut to what can be kept."""
    return max(-_LARGEST, min(int(number), _LARGEST))
