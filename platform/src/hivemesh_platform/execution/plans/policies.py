"""The retry policy of a step: what its pipeline says, else its capability, within the settings. Pure."""

from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.pipeline import Retry

from hivemesh_platform.execution.model import RetryPolicy
from hivemesh_platform.settings import ExecutionSettings

_NOTHING = Retry()


def policy_of(
    declared: Capability, settings: ExecutionSettings, asked: Retry | None = None
) -> RetryPolicy:
    """Put together how a step is repeated; nobody waits for longer than the settings allow."""
    asked = asked or _NOTHING
    retries = declared.max_retries if asked.max_retries is None else asked.max_retries
    base_s = asked.base_s or declared.retry_base_s or settings.retry_delay_s
    max_s = asked.max_s or declared.retry_max_s or settings.retry.max_s
    return RetryPolicy(retries, base_s, min(max_s, settings.retry.max_s))
