"""The worker: one reducer, which translates between the platform and the figures."""

from typing import Annotated

import msgspec
from hivemesh_sdk import Artifact, Context, Record, State, Worker

from worker_email_insights.message import Message
from worker_email_insights.report import MEDIA_TYPE, render
from worker_email_insights.state import Archive
from worker_email_insights.summary import Insights, summarize

worker = Worker()


class ReportOptions(Record):
    """What `with:` may hold."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=120)] = "E-mail insights"
    top: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10  # rows of a ranking
    subjects: bool = True  # whether the largest conversations are named


class Report(Record):
    """The figures, and the page that shows them."""

    insights: Insights
    report: Artifact


@worker.reducer("email.insights@1")
class EmailInsights(State):
    """Figures of a mail archive."""

    archive: Archive = msgspec.field(default_factory=Archive)

    def add(self, records: list[Message]) -> None:
        """Count a batch of message records, labelled or not."""
        self.archive.add(records)

    def merge(self, other: "EmailInsights") -> None:
        """Take in another part of the archive."""
        self.archive.merge(other.archive)

    def result(self, options: ReportOptions, context: Context) -> Report:
        """Work out the figures and store the page."""
        insights = summarize(self.archive, top=options.top, subjects=options.subjects)
        page = render(insights, title=options.title)
        report = context.artifacts.put(page, media_type=MEDIA_TYPE, name="email-insights.html")
        return Report(insights=insights, report=report)
