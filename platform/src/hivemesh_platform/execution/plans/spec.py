"""What a job keeps in its row, and which artifacts a JSON document names. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

import msgspec
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import SHA256, TREE_MEDIA_TYPE

from hivemesh_platform.execution.behalf import Behalf


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request of a job: input and options as they came."""

    input: msgspec.Raw = msgspec.Raw(b"null")
    options: dict[str, object] = {}
    labels: dict[str, str] = {}  # that the instance has to have
    tags: dict[str, str] = {}  # that people gave it: lists are filtered by them
    deadline_ms: int = 0
    idle_timeout_ms: int = 0
    max_retries: int = 3
    retry_base_s: float = 1.0
    retry_max_s: float = 300.0
    lines: tuple[int, int] | None = None  # of the input, where it is that of a dead letter
    replay_of: str = ""  # the dead letter that it was made from
    submitted_by: str = ""  # the step that has started it, and the name it gave: run.node.seq.name
    depth: int = 0  # how many steps have started each other up to it
    behalf: Behalf = Behalf()
    data_class: DataClass = DataClass.INTERNAL  # of its inputs
    output_class: DataClass = DataClass.INTERNAL


_SEAL = '"#crc":"'
_SEALED = len(f'{_SEAL}01234567"}}')
_INPUT = b'{"input":'


def written(spec: JobSpec) -> str:
    """The spec as its row keeps it, with a checksum at its end."""
    return _sealed(msgspec.json.encode(spec))


def written_with(spec: JobSpec, inputs: Iterable[bytes]) -> Iterator[str]:
    """The same with each of the inputs, which are JSON: what they have in common is encoded once."""
    text = msgspec.json.encode(msgspec.structs.replace(spec, input=msgspec.Raw(b"0")))
    common = text.removeprefix(_INPUT + b"0")
    return (_sealed(b"%b%b%b" % (_INPUT, one, common)) for one in inputs)


def _sealed(text: bytes) -> str:
    comma = "," if len(text) > len("{}") else ""
    return f'{text[:-1].decode()}{comma}{_SEAL}{crc32(text):08x}"}}'


class Told(msgspec.Struct):
    """What of a job's spec is shown with it."""

    tags: dict[str, str] = {}
    submitted_by: str = ""
    options: dict[str, Any] = {}


def told(text: str | None) -> Told:
    """What a kept spec says of it; one that is damaged says nothing."""
    try:
        return msgspec.json.decode(text or "{}", type=Told)
    except msgspec.MsgspecError:
        return Told()


def is_intact(text: str) -> bool:
    """Whether a kept spec is what was written; one of an earlier version has no checksum."""
    body, seal = text[:-_SEALED], text[-_SEALED:]
    if not seal.startswith(_SEAL):
        return _is_readable(text)
    body = body.removesuffix(",") + "}"
    return seal == f'{_SEAL}{crc32(body.encode(errors="surrogateescape")):08x}"}}'


def _is_readable(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=JobSpec)
    except msgspec.MsgspecError:
        return False
    return True


def artifact_digests(document: object) -> tuple[frozenset[str], frozenset[str]]:
    """Return the digests of all artifact references in a JSON document, and those of folders."""
    found: set[str] = set()
    trees: set[str] = set()
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            digest = value.get("sha256")
            if isinstance(digest, str) and SHA256.fullmatch(digest) and "size" in value:
                found.add(digest)
                if value.get("media_type") == TREE_MEDIA_TYPE:
                    trees.add(digest)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return frozenset(found), frozenset(trees)
