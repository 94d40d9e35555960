"""What the API answers about the audit trail."""

from pydantic import Field, JsonValue

from hivemesh_sdk.contracts.api import Body, View


class AuditRecordView(View):
    """One record. `object` is what the action was done to; empty members do not apply."""

    seq: int
    ts: str
    actor: str
    action: str
    object: str = ""
    decision: str
    reason: str = ""
    rule: str = ""
    on_behalf_of: str = ""
    run: str = ""
    serial: str = ""
    address: str = ""
    policy_version: int = 0
    request_id: str = ""
    trace_id: str = ""
    tenant: str = "default"
    count: int = 1  # equal events that this record stands for
    params_hmac: dict[str, str] = Field(default_factory=dict)
    prev: str
    hash: str
    replica: str = ""  # whose chain it is of, where there are several


class AuditFindingView(View):
    """The first record that does not hold."""

    seq: int
    kind: str
    detail: str


class AuditReportView(View):
    """What a verification has seen of a chain; `holds` says it of those of `others` as well."""

    holds: bool
    records: int
    first: int
    last: int
    checkpoints: int
    proven: int
    dropped: int = 0
    recovered: int = 0
    keys: list[str] = Field(default_factory=list)
    remarks: list[str] = Field(default_factory=list)
    finding: AuditFindingView | None = None
    replica: str = ""  # whose chain it is, where there are several
    others: "list[AuditReportView]" = Field(default_factory=list)  # chains of the other replicas


class AuditHashRequest(Body):
    """A parameter whose records are looked for."""

    name: str = Field(min_length=1, max_length=1024)
    value: JsonValue = None


class AuditHashView(View):
    """What records hold in place of its value."""

    name: str
    hmac: str
