"""How a step has work started that it does not wait for: a job of its own, on the same behalf."""

import msgspec


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/submits`, shown with the ticket of the step.

    The same name of the same step means the same job, however often the step is tried.
    """

    step: str  # key of the step that the caller runs
    attempt: int
    name: str  # the end of the key: `<step>.<name>`
    capability: str
    input: msgspec.Raw = msgspec.Raw(b"null")
    options: dict[str, object] = {}


class SubmitReply(msgspec.Struct, frozen=True, kw_only=True):
    """The job that was accepted, now or before."""

    job: str
