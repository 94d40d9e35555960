"""What travels between capabilities: records, rejected records and mergeable states.

A record is a msgspec struct, a dataclass, a Pydantic model or anything else msgspec knows. As
NDJSON it is one line of JSON.
"""

import msgspec

Raw = msgspec.Raw


class Record(msgspec.Struct):
    """Base of a record type; fields that the type does not know are ignored when it is read."""


class State(msgspec.Struct):
    """Base of a reducer: its fields are the partial state, which travels as one JSON document.

    `add(records)`, `merge(other)` and `result(options)` must give the same answer for every
    order and partition of the records.
    """


class Rejected(msgspec.Struct, frozen=True):
    """Stands in the place of a record that cannot be processed; the others go on.

    `position` is whatever names the record to a person: an offset, a line, a message id.
    """

    reason: str
    detail: str = ""
    position: object = None
