"""What msgspec raises for bytes that nobody can read."""

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""No JSON or of another shape, no UTF-8, nested deeper than the decoder follows."""
