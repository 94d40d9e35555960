"""The one form of every refusal (RFC 9457) and the catalogue of their codes.

`docs/reference/errors.md` is generated from `CATALOGUE`; API, worker, CLI and logs show its codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong, and where: `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    message: str
    code: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document as it travels."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    remedy: str = ""
    instance: str = ""
    request_id: str = ""
    trace_id: str = ""
    errors: list[FieldProblem] = []
    retry_after_s: float | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemType:
    """A row of the catalogue: what the code means and what to do about it."""

    slug: str
    code: str
    status: int
    title: str
    remedy: str
    retryable: bool = False

    @property
    def urn(self) -> str:
        """The `type` member of the document."""
        return f"urn:hivemesh:problem:{self.slug}"


def _type(
    code: int, slug: str, status: int, title: str, remedy: str, *, retryable: bool = False
) -> ProblemType:
    return ProblemType(
        slug=slug,
        code=f"HM-{code}",
        status=status,
        title=title,
        remedy=remedy,
        retryable=retryable,
    )


_ROWS = (
    # 10xx: request form
    _type(
        1001,
        "malformed",
        400,
        "the request cannot be read",
        "send one valid JSON document, UTF-8, no duplicate keys",
    ),
    _type(
        1002,
        "invalid",
        422,
        "the request has the wrong shape",
        "correct the fields that are named",
    ),
    _type(
        1003,
        "not-found",
        404,
        "no such object, or it is not visible to you",
        "check the name or id against the list of such objects, and what you may see: `hivemesh whoami`",
    ),
    _type(
        1004,
        "method-not-allowed",
        405,
        "this address does not take this method",
        "see the `Allow` header",
    ),
    _type(
        1005,
        "media-type-unsupported",
        415,
        "the body has an unsupported media type",
        "send application/json",
    ),
    _type(
        1006,
        "not-acceptable",
        406,
        "no representation fits the `Accept` header",
        "accept application/json",
    ),
    _type(
        1007,
        "too-large",
        413,
        "the body is larger than allowed",
        "send less in one request, or store it as an artifact first",
    ),
    _type(
        1008,
        "headers-too-large",
        431,
        "the headers are larger than allowed",
        "send fewer or shorter headers",
    ),
    _type(
        1009,
        "slow-request",
        408,
        "the request did not arrive in time",
        "send head and body without pauses",
    ),
    _type(
        1010,
        "conflict",
        409,
        "the object is in another state",
        "read the object again and repeat what still applies",
    ),
    _type(
        1011,
        "range-not-satisfiable",
        416,
        "the range lies outside the object",
        "ask for a range below its size",
    ),
    # 11xx: identity and permission
    _type(
        1101,
        "no-peer-identity",
        401,
        "the connection shows no client identity",
        "connect with a certificate of this installation",
    ),
    _type(
        1102,
        "peer-identity-invalid",
        403,
        "the client certificate is not a valid identity of this installation",
        "enrol again",
    ),
    _type(
        1103,
        "peer-certificate-expired",
        401,
        "the client certificate has expired",
        "renew it, or enrol again",
    ),
    _type(
        1104,
        "peer-revoked",
        403,
        "the client's identity was revoked",
        "ask the operator of this installation",
    ),
    _type(
        1105,
        "not-authorized",
        403,
        "the caller may not do this",
        "ask for the permission, or call as another identity",
    ),
    _type(
        1106,
        "enrolment-refused",
        401,
        "the enrolment token or credential is not accepted",
        "ask the operator for a new token",
    ),
    _type(
        1107,
        "csr-invalid",
        422,
        "the certificate request is not acceptable",
        "P-256 or P-384 key, valid signature, no foreign names",
    ),
    _type(
        1108,
        "key-reused",
        409,
        "this public key was used before",
        "make a new key for each request",
    ),
    _type(
        1109,
        "enrolment-rate-limited",
        429,
        "too many failed enrolments from this address",
        "wait for `retry_after_s`",
        retryable=True,
    ),
    _type(1110, "renewal-refused", 403, "this certificate cannot be renewed", "enrol again"),
    # 12xx: steps (worker)
    _type(
        1201,
        "unknown-capability",
        404,
        "the capability is not served here",
        "see `hivemesh capability list`",
    ),
    _type(
        1202,
        "idempotency-mismatch",
        422,
        "the key was used with another body",
        "use a new key, or send the same body",
    ),
    _type(
        1203,
        "stale-attempt",
        409,
        "a newer attempt of this step exists",
        "stop: the result of this attempt is not wanted",
    ),
    _type(
        1204,
        "stale-reader",
        409,
        "a newer reader of this step exists",
        "stop: another replica reads this step",
    ),
    _type(
        1205,
        "execution-unknown",
        404,
        "this worker has no such execution",
        "start the next attempt from the last recorded checkpoint",
        retryable=True,
    ),
    _type(
        1206,
        "overloaded",
        429,
        "all slots are taken",
        "repeat after `retry_after_s`, or scale the worker",
        retryable=True,
    ),
    _type(
        1207, "draining", 503, "this worker is draining", "call another instance", retryable=True
    ),
    _type(
        1208,
        "deadline-exceeded",
        504,
        "the deadline passed before the work ended",
        "give it more time, or less to do",
        retryable=True,
    ),
    _type(1209, "cancelled", 409, "the work was cancelled", "start it again if it is still wanted"),
    _type(
        1210,
        "executor-crashed",
        500,
        "the process that computed the step died",
        "see the worker's log; memory limit or a crash in native code",
        retryable=True,
    ),
    _type(
        1211,
        "step-failed",
        500,
        "the capability raised an error",
        "see the worker's log; `hivemesh-worker call -vv` shows the stack trace",
        retryable=True,
    ),
    _type(
        1212,
        "record-too-large",
        422,
        "a record is larger than 4 MiB",
        "declare large fields as artifacts",
    ),
    _type(
        1213,
        "output-invalid",
        500,
        "the capability answered something else than it declares",
        "correct the worker: `hivemesh-worker check`",
    ),
    _type(
        1214,
        "options-invalid",
        422,
        "the options of the capability are not valid",
        "mend what is named; `hivemesh capability show NAME` prints the schema",
    ),
    _type(
        1215,
        "input-invalid",
        422,
        "the input does not fit the capability",
        "mend what is named; `hivemesh capability show NAME` prints the schema",
    ),
    _type(
        1216,
        "overloaded-server",
        503,
        "the server takes no more requests at the moment",
        "repeat after `retry_after_s`",
        retryable=True,
    ),
    _type(
        1217,
        "step-fatal",
        422,
        "the capability refuses this input for good",
        "mend the input, or the worker",
    ),
    _type(
        1218,
        "configuration",
        422,
        "the capability is not configured correctly",
        "mend the option or setting that is named",
    ),
    _type(
        1219,
        "artifact-unavailable",
        502,
        "an artifact could not be read or stored",
        "wait: the step is repeated",
        retryable=True,
    ),
    _type(1220, "skipped", 422, "there was nothing to do for this input", "nothing is to be done"),
    _type(
        1221,
        "condition-undecided",
        422,
        "the condition of a step cannot be decided",
        "ask exists(STEP.field) before, and compare values of one type",
    ),
    _type(
        1222,
        "nothing-to-retry",
        409,
        "nothing of it has failed",
        "name a step to do it afresh from there: `hivemesh run retry RUN --from STEP`",
    ),
    _type(
        1223,
        "nothing-missing",
        409,
        "the run has gone on without nothing",
        "a run is back-filled that has gone without an optional step, or whose dead letters jobs have mended",
    ),
    _type(
        1230,
        "limit-invalid",
        422,
        "the limit or its key is not written as it has to be",
        "`hivemesh limit set --help` shows the forms",
    ),
    _type(
        1231,
        "limit-from-settings",
        409,
        "the limit stands in the settings",
        "change `execution.limits` or `execution.rates` there, or set another one over it",
    ),
    _type(
        1232,
        "submit-in-flight",
        409,
        "the same request is being accepted at this moment",
        "repeat after `retry_after_s`: the answer is then the one of the first",
        retryable=True,
    ),
    _type(
        1240,
        "dead-letter-settled",
        409,
        "the dead letter was retried or discarded before",
        "see what became of it: `hivemesh dead-letter show ID`",
    ),
    _type(
        1241,
        "replay-impossible",
        409,
        "this input cannot be run by itself",
        "the run as a whole is repeated with `hivemesh run retry RUN`",
    ),
    _type(
        1242,
        "payload-damaged",
        500,
        "the stored request of a job does not match its digest",
        "restore the database from a backup, or submit the job again",
    ),
    _type(
        1243,
        "database-damaged",
        409,
        "the database file is damaged",
        "stop, keep the file as it is, and put a backup in its place, or take another way that is named",
    ),
    # 13xx: registry and routing
    _type(
        1301,
        "worker-unreachable",
        502,
        "the worker does not answer",
        "see `hivemesh worker list` and its log",
        retryable=True,
    ),
    _type(
        1302,
        "instance-unknown",
        404,
        "the instance is not registered",
        "register again",
        retryable=True,
    ),
    _type(
        1303,
        "manifest-mismatch",
        422,
        "the manifest is not the installed one",
        "restart the worker from the installed version",
    ),
    _type(
        1304,
        "capability-not-consented",
        403,
        "the capability is not in the installed manifest",
        "install the manifest that declares it",
    ),
    _type(
        1305,
        "incompatible",
        422,
        "the worker asks for another platform version",
        "install matching versions; see its `platform` range",
    ),
    _type(
        1306,
        "clock-off",
        409,
        "the clock of the instance differs from the platform's",
        "set both clocks right, by NTP for instance; the instance is taken again by itself",
        retryable=True,
    ),
    _type(
        1307,
        "instance-duplicate",
        409,
        "another live process uses this instance name",
        "stop the other process or let it expire",
    ),
    _type(
        1308,
        "worker-lost",
        502,
        "the worker stopped answering while it held the step",
        "the step is placed again by itself",
        retryable=True,
    ),
    _type(
        1309,
        "manifest-invalid",
        422,
        "the manifest is not valid",
        "correct what is named; `hivemesh-worker check`",
    ),
    _type(
        1311,
        "database-unreachable",
        503,
        "the database server does not answer",
        "start the server or mend the way to it; the platform goes on by itself",
        retryable=True,
    ),
    _type(
        1312,
        "database-unsuitable",
        422,
        "the database cannot be used as it is",
        "do what the detail says about `database.url` or the server",
    ),
    _type(
        1320,
        "replica-id-in-use",
        409,
        "another process runs as this replica",
        "give each replica a name of its own: --set replica.id=NAME",
    ),
    _type(
        1321,
        "replica-keys-differ",
        409,
        "this replica has other keys than the others",
        "mount one folder at all replicas and set replica.shared_folder to it",
    ),
    _type(
        1322,
        "stale-replica",
        409,
        "this replica was declared dead, and others go on with its work",
        "nothing: it joins again by itself; see `hivemesh replica list`",
        retryable=True,
    ),
    # 14xx: pipelines and runs
    _type(
        1401,
        "pipeline-invalid",
        422,
        "the pipeline is not valid",
        "correct what is named; `hivemesh pipeline validate FILE`",
    ),
    _type(
        1402,
        "parameter-invalid",
        422,
        "a parameter of the pipeline is missing or wrong",
        "give it: `-p NAME=VALUE`, a file as `-p NAME=@FILE`; `hivemesh pipeline list -o wide` shows all",
    ),
    _type(1403, "run-ended", 409, "the run has ended already", "start a new run"),
    _type(
        1404,
        "output-missing",
        404,
        "the run has no such output yet",
        "wait for the run, or see its outputs with `hivemesh run show`",
    ),
    # 15xx: data
    _type(
        1501,
        "artifact-missing",
        404,
        "no such artifact, or it is not visible to you",
        "store it first: `hivemesh artifact put FILE`",
    ),
    _type(
        1502,
        "artifact-digest-mismatch",
        422,
        "the bytes do not have the announced digest",
        "send them again",
    ),
    _type(
        1503,
        "artifact-damaged",
        500,
        "a stored artifact does not match its digest",
        "restore it from a backup, or store it again",
    ),
    _type(
        1504,
        "storage-full",
        507,
        "no space is left for new data",
        "free space or raise the quota, the work goes on by itself",
        retryable=True,
    ),
    # 16xx: installation
    _type(
        1601,
        "configuration-invalid",
        422,
        "the configuration is not valid",
        "correct the named key; `hivemesh config show --origin`",
    ),
    _type(
        1602,
        "state-in-use",
        409,
        "another platform uses this state folder",
        "stop it with `hivemesh down`, or choose another --state",
    ),
    _type(
        1603,
        "state-incompatible",
        409,
        "the state folder belongs to another version",
        "run `hivemesh state upgrade`, or use the version that wrote it",
    ),
    _type(
        1604,
        "port-taken",
        409,
        "a port is taken by another program",
        "free it, or set another: HIVEMESH_API__PORT, HIVEMESH_API__ENROLMENT_PORT, "
        "HIVEMESH_API__PEOPLE_PORT; 0 takes a free one",
    ),
    _type(
        1605,
        "platform-unreachable",
        503,
        "the platform does not answer",
        "start it with `hivemesh up`",
        retryable=True,
    ),
    _type(
        1606,
        "worker-environment-failed",
        500,
        "the environment of a worker could not be built",
        "see `hivemesh worker logs NAME`",
    ),
    _type(
        1607,
        "file-unreadable",
        422,
        "a file cannot be read or written",
        "check path and permissions",
    ),
    _type(
        1609,
        "credential-missing",
        401,
        "no operator certificate was found",
        "run the command on the machine of the platform, or pass --state",
    ),
    _type(
        1610,
        "command-misused",
        400,
        "the command cannot be understood",
        "add --help to see the usage and examples",
    ),
    _type(
        1611,
        "answer-missing",
        400,
        "the command has a question, and nobody can be asked",
        "answer with --yes or a file, or run it at a terminal without --no-input",
    ),
    _type(
        1612,
        "output-unwritable",
        500,
        "what the command prints cannot be written",
        "free space on the disk that the output goes to, and run the command again",
    ),
    # 17xx: audit, access, policy, tickets, secrets, revocation, safe parsers
    _type(
        1700,
        "audit-unavailable",
        503,
        "the audit trail cannot be written",
        "free space on the disk of the state folder; until then nothing is done that must be on record",
        retryable=True,
    ),
    _type(
        1701,
        "audit-damaged",
        409,
        "the audit trail does not hold together",
        "keep the files as they are and compare them with the second copy of the checkpoints",
    ),
    _type(
        1710,
        "grant-invalid",
        422,
        "the grant is not written right",
        "write <verb>:<kind>/<name>; docs/how-to/people-and-tokens.md lists the words",
    ),
    _type(
        1711,
        "token-missing",
        401,
        "the request carries no API token",
        "send `Authorization: Bearer hm1…`; make a token with: hivemesh token create",
    ),
    _type(
        1712,
        "token-refused",
        401,
        "the API token is not accepted",
        "it is unknown, expired or revoked; make another with: hivemesh token create",
    ),
    _type(
        1713,
        "token-rate-limited",
        429,
        "too many refused API tokens from this address",
        "wait a minute; a valid token is not limited",
        retryable=True,
    ),
    _type(
        1714,
        "host-not-allowed",
        421,
        "the platform does not answer under this host name",
        "add the name to api.people_names, or call the address that `hivemesh up` printed",
    ),
    _type(
        1715,
        "role-unknown",
        422,
        "there is no such role",
        "hivemesh auth role list shows them",
    ),
    _type(
        1716,
        "provider-unknown",
        422,
        "there is no such type of identity provider",
        "use one of the types that the message lists",
    ),
    _type(
        1717,
        "grant-too-wide",
        403,
        "nobody gives more than he has",
        "ask for less, or ask an admin; see what you have with: hivemesh whoami",
    ),
    _type(
        1720,
        "policy-invalid",
        422,
        "the policy document is not valid",
        "correct the lines that are named; `hivemesh policy test FILE` checks it",
    ),
    _type(
        1721,
        "policy-tests-failed",
        422,
        "tests of the policy document fail",
        "correct the rules or the tests; `hivemesh policy test FILE` shows them",
    ),
    _type(
        1722,
        "policy-changed",
        412,
        "another version of the policy is in force meanwhile",
        "look at `hivemesh policy diff FILE` and apply it again",
    ),
    _type(
        1723,
        "policy-stale",
        503,
        "the policy of this worker is too old to begin calls of other workers",
        "see whether the worker reaches its platform: `hivemesh worker show NAME`",
        retryable=True,
    ),
    _type(
        1724,
        "policy-denied",
        403,
        "the policy does not allow this call",
        "ask why: `hivemesh policy explain CALLER CALLEE CAPABILITY`",
    ),
    _type(
        1725,
        "precondition-missing",
        428,
        "the request does not say which version it changes",
        'send `If-Match: "VERSION"`',
    ),
    _type(
        1730,
        "signature-invalid",
        401,
        "the signed document is not valid",
        "ask the platform for a fresh one",
    ),
    _type(
        1760,
        "egress-denied",
        403,
        "this destination is not allowed",
        "declare it under permissions.egress; an internal one also needs a rule in the policy",
    ),
    _type(
        1761,
        "fetch-failed",
        502,
        "no complete answer came from outside",
        "see whether the address is right and answers; it is tried again",
        retryable=True,
    ),
    _type(
        1762,
        "fetch-too-large",
        422,
        "the answer from outside is larger than allowed",
        "ask for a part of it, or raise the limit of this request",
    ),
    _type(
        1763,
        "archive-unsafe",
        422,
        "the archive holds what is not unpacked",
        "see the detail; pack it again without links, special files or paths out of the folder",
    ),
    _type(
        1764,
        "archive-too-large",
        422,
        "the archive unpacks to more than allowed",
        "split it, or raise the limits of this reader",
    ),
    _type(
        1765,
        "archive-damaged",
        422,
        "the archive cannot be read",
        "pack it again; encrypted archives are not read",
    ),
    _type(
        1766,
        "xml-unsafe",
        422,
        "the XML document declares entities or a document type",
        "send it without a DTD",
    ),
    _type(
        1731,
        "ticket-missing",
        401,
        "the request shows no ticket",
        "send the step's ticket in the header `Hivemesh-Ticket`",
    ),
    _type(
        1732,
        "ticket-invalid",
        401,
        "the ticket cannot be read",
        "send it unchanged, as the platform gave it",
    ),
    _type(
        1733,
        "ticket-expired",
        401,
        "the ticket has expired",
        "ask with a fresh one; if it is fresh, compare the clocks of both machines",
        retryable=True,
    ),
    _type(
        1734,
        "ticket-not-yet-valid",
        401,
        "the ticket is not valid yet",
        "compare the clocks of both machines",
        retryable=True,
    ),
    _type(
        1735,
        "ticket-replayed",
        401,
        "the ticket was used for this step already",
        "start the next attempt, which has a ticket of its own",
        retryable=True,
    ),
    _type(
        1736,
        "data-class-exceeded",
        403,
        "the data is too sensitive for this",
        "use a capability with a higher `data_class_max`, or declassify the data before",
    ),
    _type(
        1740,
        "secret-missing",
        404,
        "there is no such secret",
        "`hivemesh secret list` shows the names; store it with `hivemesh secret set NAME`",
    ),
    _type(
        1741,
        "secrets-sealed",
        503,
        "secrets sealed",
        "unseal the store; what waits for it goes on by itself",
        retryable=True,
    ),
    _type(
        1742,
        "secret-denied",
        403,
        "the step may not use this secret",
        "name it in the step's options and in the manifest's `permissions.secrets`",
    ),
    _type(
        1743,
        "secret-lease-expired",
        409,
        "the step to which the secret was lent has ended",
        "read a secret within the step that uses it",
    ),
    _type(
        1744,
        "secret-in-answer",
        422,
        "an answer would carry a secret out of the step",
        "leave it out of records, results and artifacts",
    ),
    _type(
        1745,
        "secret-damaged",
        500,
        "a stored secret cannot be decrypted",
        "restore `secrets/` of the state folder with its key, or store the secret again",
    ),
    _type(
        1750,
        "ca-busy",
        409,
        "the authority's keys are being changed",
        "wait for the end; `hivemesh ca status` shows what it waits for",
    ),
    _type(
        1751,
        "root-expired",
        503,
        "the root certificate has expired",
        "hivemesh ca rotate --emergency; see docs/how-to/break-glass.md",
    ),
    _type(
        1752,
        "signing-limited",
        429,
        "more certificates are asked for than the authority signs",
        "wait, and see who asks: hivemesh audit list --action certificate:sign",
        retryable=True,
    ),
    # 19xx
    _type(
        1900,
        "internal",
        500,
        "something went wrong inside",
        "report it with the request id",
        retryable=True,
    ),
)

CATALOGUE: dict[str, ProblemType] = {row.slug: row for row in _ROWS}


def problem(  # noqa: PLR0913 - the members of the document
    slug: str,
    detail: str = "",
    *,
    remedy: str = "",
    errors: Sequence[FieldProblem] = (),
    instance: str = "",
    request_id: str = "",
    retry_after_s: float | None = None,
    retryable: bool | None = None,
) -> Problem:
    """Build a document of the catalogue's kind `slug`; a remedy replaces the catalogue's.

    Raises:
        KeyError: the slug is not in the catalogue.
    """
    row = CATALOGUE[slug]
    return Problem(
        type=row.urn,
        title=row.title,
        status=row.status,
        code=row.code,
        detail=detail,
        remedy=remedy or row.remedy,
        instance=instance,
        request_id=request_id,
        errors=list(errors),
        retry_after_s=retry_after_s,
        retryable=row.retryable if retryable is None else retryable,
    )


def slug_of(document: Problem) -> str:
    """The catalogue's slug of a received document, or "" for a foreign one."""
    prefix = "urn:hivemesh:problem:"
    return document.type.removeprefix(prefix) if document.type.startswith(prefix) else ""
