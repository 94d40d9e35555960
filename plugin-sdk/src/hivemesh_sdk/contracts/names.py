"""Names and keys that travel: their grammar and how they are joined."""

import re
from typing import NewType

PROTOCOL = 1  # wire protocol version; N and N-1 interoperate
PROTOCOLS = (1,)
DEFAULT_PRIORITY = 5  # of 0 to 10; 10 starts first

CapabilityId = NewType("CapabilityId", str)
StepKeyText = NewType("StepKeyText", str)

WORKER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
CAPABILITY_ID = re.compile(r"[a-z][a-z0-9_]{0,39}(?:\.[a-z][a-z0-9_]{0,39})+@[1-9][0-9]{0,3}")
NODE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
EGRESS_RULE = re.compile(  # exact meaning: hivemesh_sdk.safeio.egress
    r"(?:https?://)?(?:\*|(?:\*\.)?[a-z0-9._-]+(?:/\d{1,2})?|\[[0-9a-f:.]+(?:/\d{1,3})?\])(?::\d{1,5})?"
)
TENANT = re.compile(r"[a-z0-9-]{1,40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_STEP_KEY = re.compile(r"([A-Za-z0-9_-]{1,64})\.([a-z][a-z0-9_-]{0,39})\.([0-9]{1,12})")
CALL_NAME = re.compile(r"[a-z0-9_-]{1,40}")  # of a call that a step makes: the end of its key

HEALTH_PATH = "/v1/health"  # answered to whoever is known, also in a rush
TICKET_HEADER = "hivemesh-ticket"
DEADLINE_HEADER = "hivemesh-deadline-ms"
EXECUTION_HEADER = "hivemesh-execution"
ACKNOWLEDGE_HEADER = "hivemesh-acknowledge"
REQUEST_ID_HEADER = "x-request-id"
IDEMPOTENCY_HEADER = "idempotency-key"
REPLICAS_HEADER = "hivemesh-replicas"  # of answers to people: where the platform is reached too
PROBLEM_MEDIA_TYPE = "application/problem+json"
PAGE_MEDIA_TYPE = "application/vnd.hivemesh.events"
TREE_MEDIA_TYPE = "application/vnd.hivemesh.tree+json"
NDJSON_MEDIA_TYPE = "application/x-ndjson"


def step_key(run: str, node: str, seq: int) -> StepKeyText:
    """Join the parts of a step key: `run.node.seq`."""
    return StepKeyText(f"{run}.{node}.{seq}")


def parse_step_key(text: str) -> tuple[str, str, int]:
    """Split a step key into run, node and seq.

    Raises:
        ValueError: the text is no step key.
    """
    match = _STEP_KEY.fullmatch(text)
    if match is None:
        message = f"{text!r} is no step key; the form is run.node.seq"
        raise ValueError(message)
    return match[1], match[2], int(match[3])
