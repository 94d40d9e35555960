"""`hivemesh-worker schema`: the JSON Schemas that the annotations of the capabilities give."""

import argparse
import json
import sys

from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.failures import OK
from hivemesh_sdk.lifecycle.location import import_worker, locate


def run(options: argparse.Namespace) -> int:
    """Print the schemas of one or all capabilities."""
    schemas = import_worker(locate(options.worker)).declared_schemas()
    name = options.capability
    if name is not None and name not in schemas:
        message = f"no capability {name!r}; defined are {', '.join(sorted(schemas))}"
        raise NotFoundError(message)
    shown: object = schemas if name is None else schemas[name]
    sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    return OK
