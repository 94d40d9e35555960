"""Which command lists the objects of a kind, for whoever asked for one that is not there."""

LISTS = {
    "artifacts": "dataset list",
    "auth": "auth role list",
    "capabilities": "capability list",
    "datasets": "dataset list",
    "dead-letters": "dead-letter list",
    "denials": "worker denied",
    "enrolment": "worker credential list",
    "jobs": "job list",
    "limits": "limit list",
    "pipelines": "pipeline list",
    "policy": "policy history",
    "runs": "run list",
    "tokens": "token list",
    "workers": "worker list",
}


def remedy(path: str) -> str:
    """What to do about an absent object under a path of the API; empty where there is no list."""
    kind = path.removeprefix("/v1/").partition("/")[0]
    return f"`hivemesh {LISTS[kind]}` shows those that you may see" if kind in LISTS else ""
