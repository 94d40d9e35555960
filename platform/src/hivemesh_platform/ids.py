"""Identifier types and how new identifiers are made: a prefix and a UUIDv7 (sorted by time)."""

import os
import time
from typing import NewType

RunId = NewType("RunId", str)
JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)

DEFAULT_TENANT = TenantId("default")
_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_RANDOM_HIGH = 0xFFF << 64
_RANDOM_LOW = (1 << 62) - 1


def new_run_id() -> RunId:
    """Make the id of a run."""
    return RunId(f"run_{_uuid7_hex()}")


def new_job_id() -> JobId:
    """Make the id of a job."""
    return JobId(f"job_{_uuid7_hex()}")


def new_letter_id() -> str:
    """Make the id of a dead letter."""
    return f"dl_{_uuid7_hex()}"


def _uuid7_hex() -> str:
    """RFC 9562 section 5.7: 48 bits of milliseconds, then random bits."""
    milliseconds = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= _VERSION_7 | ((noise << 2) & _RANDOM_HIGH) | _VARIANT | (noise & _RANDOM_LOW)
    return f"{value:032x}"
