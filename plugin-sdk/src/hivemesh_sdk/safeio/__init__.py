"""The only way to what people or strangers wrote: YAML, JSON, XML, archives, file names, the web.

Every reader here has a size, a depth and a form it accepts; what it refuses it names by line,
offset or JSON pointer.
"""

from hivemesh_sdk.safeio.json import parse_json
from hivemesh_sdk.safeio.names import contained, file_name, open_contained
from hivemesh_sdk.safeio.problems import MalformedError
from hivemesh_sdk.safeio.yaml import parse_yaml

__all__ = [
    "MalformedError",
    "contained",
    "file_name",
    "open_contained",
    "parse_json",
    "parse_yaml",
]
