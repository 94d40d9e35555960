"""How a refused document is told: where it is wrong, in words and as a JSON pointer."""

from collections.abc import Iterable, Sequence

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import InvalidError


class MalformedError(InvalidError):
    """The document cannot be read at all; `errors` say where and why."""

    slug = "malformed"

    def __init__(self, message: str, *, code: str, pointer: str = "", remedy: str = "") -> None:
        problem = FieldProblem(pointer=pointer, message=message, code=code)
        super().__init__(message, remedy=remedy, errors=[problem])
        self.code = code


def pointer(path: Iterable[str | int]) -> str:
    """Join a path to a JSON pointer (RFC 6901, section 3)."""
    return "".join(f"/{escape(str(part))}" for part in path)


def escape(part: str) -> str:
    """One reference token of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def listing(errors: Sequence[FieldProblem]) -> str:
    """All errors in one line, for a log or a command's message."""
    return "; ".join(f"{error.pointer or '/'}: {error.message}" for error in errors)
