"""The two capabilities of the worker: translates options and errors, computes nothing."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from hivemesh_sdk import Artifact, Context, FatalError, Record, Rejected, Worker
from hivemesh_sdk.contracts.problems import FieldProblem

from worker_email_parser.archives import Checkpoint, Format, Found, parse_found, read_archive
from worker_email_parser.errors import ArchiveError
from worker_email_parser.message import USEFUL_HEADERS, Keep, Message, ParseChoices
from worker_email_parser.statistics import Statistics, Tally

worker = Worker()

_REPORT_EVERY = 1024 * 1024  # bytes of the archive between two reports of progress


class ParseOptions(Record):
    """Options of email.parse@1."""

    archive: Artifact
    format: Format = "auto"
    headers: Literal["useful", "all", "none"] | list[str] = "useful"
    bodies: bool = True
    attachments: Literal["none", "metadata", "artifacts"] = "metadata"
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AnalyzeOptions(Record):
    """Options of email.analyze@1."""

    archive: Artifact
    format: Format = "auto"
    top: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


@worker.source("email.parse@1", run_in="process")
def parse(
    options: ParseOptions, start: Checkpoint | None, context: Context
) -> Iterator[tuple[Message | Rejected, Checkpoint]]:
    """Yield one record per message of an archive."""
    choices = _choices(options)
    keep = _keeper(context) if options.attachments == "artifacts" else None
    if options.limit is not None and start is not None and start.done >= options.limit:
        return
    for found in _messages(options.archive, options.format, start, context):
        yield parse_found(found, choices, keep), found.checkpoint
        if found.checkpoint.done == options.limit:
            return


@worker.call("email.analyze@1", run_in="process")
def analyze(options: AnalyzeOptions, context: Context) -> Statistics:
    """Count what an archive holds without keeping a message."""
    choices = ParseChoices(headers=(), bodies=False)
    tally = Tally()
    for found in _messages(options.archive, options.format, None, context):
        tally.add(parse_found(found, choices))
    return tally.result(options.top)


def _choices(options: ParseOptions) -> ParseChoices:
    named: tuple[str, ...] | None
    if isinstance(options.headers, list):
        named = tuple(name.lower() for name in options.headers)
    else:
        named = {"all": None, "none": (), "useful": USEFUL_HEADERS}[options.headers]
    return ParseChoices(headers=named, bodies=options.bodies, attachments=options.attachments)


def _keeper(context: Context) -> Keep:
    def keep(content: bytes, media_type: str, name: str | None) -> Artifact:
        return context.artifacts.put(content, media_type=media_type, name=name)

    return keep


def _messages(
    archive: Artifact, format_: Format, start: Checkpoint | None, context: Context
) -> Iterator[Found]:
    """Walk the archive, reporting progress and stopping when cancelled.

    Raises:
        FatalError: the archive is not of the named format, empty or damaged.
    """
    reported = 0

    def report(done: int, total: int) -> None:
        nonlocal reported
        if done - reported >= _REPORT_EVERY or done >= total:
            reported = done
            context.progress(done, total, "bytes")

    try:
        for found in read_archive(
            context.artifacts, archive, format=format_, start=start, progress=report
        ):
            if context.cancelled:
                return
            yield found
    except ArchiveError as error:
        raise _refusal(error) from error


def _refusal(error: ArchiveError) -> FatalError:
    problem = FieldProblem(pointer="/archive", message=str(error), code=error.code)
    return FatalError(f"{error.code}: {error}", slug="input-invalid", errors=[problem])
