"""Says of what the platform found wrong with a document where it stands in its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.safeio.documents import read_text
from hivemesh_sdk.safeio.yaml import parse_yaml_document


@contextmanager
def located(file: Path | None) -> Iterator[None]:
    """Put `FILE:LINE` before each mistake in the document that the file holds."""
    try:
        yield
    except RemoteError as error:
        if file is None or not error.document.errors:
            raise
        lines = parse_yaml_document(read_text(file), name=file.name, max_aliases=100).lines
        found = [_with_line(one, file, lines) for one in error.document.errors]
        document = msgspec.structs.replace(
            error.document, errors=found, detail=f"{file} is not valid"
        )
        raise RemoteError(document) from error


def _with_line(problem: FieldProblem, file: Path, lines: dict[str, int]) -> FieldProblem:
    line = lines.get(problem.pointer) or lines.get(problem.pointer.rpartition("/")[0])
    if line is None:
        return problem
    message = f"{file}:{line}: {problem.message}"
    return FieldProblem(pointer=problem.pointer, message=message, code=problem.code)
