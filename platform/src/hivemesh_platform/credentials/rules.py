"""Which secret a step may use. Pure.

A path below `workers.<name>` belongs to the worker of that name and to nobody else. For every
path: the step's options refer to it, the worker's manifest asks for it, and the principal for whom
the step is done may use it (`run:secret/<path>`).
"""

from hivemesh_sdk.contracts.names import TENANT
from hivemesh_sdk.contracts.references import SECRET_PATH, permits

from hivemesh_platform.access.model import Grant, Rights
from hivemesh_platform.credentials.errors import SecretInvalidError
from hivemesh_platform.credentials.model import StepSecrets

WORKERS = "workers"
TENANTS = "tenants"  # below it lie the secrets of the tenants but for the default one
DEFAULT_TENANT = "default"
MAX_VALUE_BYTES = 64 * 1024


def refusal(step: StepSecrets, path: str) -> tuple[str, str]:
    """Why a step may not use a secret, as the id of the rule and a sentence; two "" if it may."""
    if path not in step.named:
        return "named", f"the options of {step.key} do not refer to {path!r} in a secret field"
    first, _, rest = path.partition(".")
    if is_kept(path):
        return (
            "tenant",
            f"{path!r} is no name that a step may use: names below {TENANTS!r} are kept",
        )
    if first == WORKERS and rest.partition(".")[0] != step.worker:
        return "own-path", f"{path!r} belongs to another worker than {step.worker!r}"
    if not permits(step.permitted, path):
        return (
            "manifest",
            f"the manifest of {step.worker!r} does not ask for {path!r} in permissions.secrets",
        )
    if not Rights(map(Grant.parse, step.grants)).allows("run", "secret", path):
        return "principal", f"{step.on_behalf_of or 'nobody'} has no grant run:secret/{path}"
    return "", ""


def check_path(path: str) -> None:
    """Refuse what is no path, and paths below which the secrets of tenants lie.

    Raises:
        SecretInvalidError: it is none, or one of those.
    """
    if SECRET_PATH.fullmatch(path) is None:
        message = (
            f"{path!r} is no name of a secret; write letters, digits, - and _ in parts with "
            "points between them, such as mail.imap.password"
        )
        raise SecretInvalidError(message)
    if is_kept(path):
        message = f"names that begin with {TENANTS!r} are the platform's; choose another"
        raise SecretInvalidError(message)


def is_kept(path: str) -> bool:
    """Whether a path is one that nobody may name: those of the tenants begin so in the store."""
    return path.partition(".")[0] == TENANTS


def check_value(value: str) -> None:
    """Refuse what cannot be stored.

    Raises:
        SecretInvalidError: it is empty or too long.
    """
    if not value:
        message = "the value is empty; give it on standard input, by --file, or at the prompt"
        raise SecretInvalidError(message)
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > MAX_VALUE_BYTES or "\0" in value:
        message = (
            f"a secret has at most {MAX_VALUE_BYTES} bytes of text and no NUL; this has {size}"
        )
        raise SecretInvalidError(message)


def scoped(tenant: str, path: str) -> str:
    """Where a tenant's secret lies in the store.

    Raises:
        SecretInvalidError: no tenant can have the name; with points in it, it could name the
            secrets of another one.
    """
    if tenant == DEFAULT_TENANT:
        return path
    if TENANT.fullmatch(tenant) is None:
        message = f"{tenant!r} is no name of a tenant; it has the form {TENANT.pattern}"
        raise SecretInvalidError(message)
    return f"{TENANTS}.{tenant}.{path}" if path else f"{TENANTS}.{tenant}"
