"""Which secrets options refer to, and what is wrong with that whatever the store holds. Pure."""

from collections.abc import Iterator

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.contracts.references import permits, reference_problems, references_in
from pydantic import JsonValue

from hivemesh_platform.execution.ports import KnownCapability

SecretUse = tuple[str, str]  # pointer and path


def secret_problems(
    options: dict[str, JsonValue],
    known: KnownCapability,
    pointer: str,
) -> Iterator[FieldProblem]:
    """What is wrong with the references of options, whatever the store holds."""
    schema = known.declared.options
    yield from reference_problems(options, schema, pointer)
    for place, path in references_in(options, schema, pointer):
        if not permits(known.permissions.secrets, path):
            message = (
                f"{known.worker} does not ask for {path!r}: its manifest's permissions.secrets "
                f"are {list(known.permissions.secrets)}"
            )
            yield FieldProblem(pointer=place, message=message, code="secret-not-permitted")
