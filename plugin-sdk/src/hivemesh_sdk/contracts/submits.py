"""How a step has work started that it does not wait for: a job of its own, on the same behalf."""

import msgspec


class SubmitHow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be said of the work beside what it is given."""

    priority: int | None = None  # 0 to 10; that of any job, or of the pipeline
    labels: dict[str, str] = {}  # lists are filtered by them
    deadline_s: float | None = None  # of a job; a pipeline's steps have their own


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/submits`, shown with the ticket of the step.

    The same name of the same step means the same job, however often the step is tried.
    """

    step: str  # key of the step that the caller runs
    attempt: int
    name: str  # the end of the key: `<step>.<name>`
    capability: str  # or `pipeline/NAME@VERSION`, with its parameters as options
    input: msgspec.Raw = msgspec.Raw(b"null")
    options: dict[str, object] = {}
    how: SubmitHow = SubmitHow()


class SubmitReply(msgspec.Struct, frozen=True, kw_only=True):
    """The job that was accepted, now or before; or the run of a pipeline."""

    job: str
