"""Reads XML of strangers: no document type, no entities, nothing from outside, bounded in depth.

The tree is the standard library's, so that callers search it as they know; only the way in is
ours. Office documents and SVG go this way too.
"""

from typing import TYPE_CHECKING
from xml.parsers import expat

from hivemesh_sdk.errors import InvalidError
from hivemesh_sdk.safeio.problems import MalformedError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 1_000_000
MAX_ATTRIBUTES = 256
_SEPARATOR = "}"


class XmlUnsafeError(InvalidError):
    """It declares a document type or entities."""

    slug = "xml-unsafe"


def parse_xml(
    data: bytes,
    *,
    name: str = "the document",
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_elements: int = MAX_ELEMENTS,
) -> "Element":
    """Read one XML document and return its root; names carry their namespace as `{uri}local`.

    Raises:
        XmlUnsafeError: it has a DOCTYPE, and with it the power to expand or to fetch.
        MalformedError: it is too large, too deep, or not well-formed.
    """
    if len(data) > max_bytes:
        message = f"{name} has {len(data)} bytes; at most {max_bytes} are read"
        raise MalformedError(message, code="too-large")
    return _Reader(name, max_depth, max_elements).read(data)


class _Reader:
    """Expat's callbacks of one document."""

    def __init__(self, name: str, max_depth: int, max_elements: int) -> None:
        from xml.etree.ElementTree import TreeBuilder  # noqa: PLC0415 - only where XML is read

        self._name = name
        self._max_depth = max_depth
        self._left = max_elements
        self._depth = 0
        self._tree: TreeBuilder = TreeBuilder()
        self._parser = parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.EntityDeclHandler = self._refuse_doctype
        parser.ExternalEntityRefHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._tree.data

    def read(self, data: bytes) -> "Element":
        try:
            self._parser.Parse(data, True)  # noqa: FBT003 - the parser's interface
            return self._tree.close()
        except expat.ExpatError as error:
            message = (
                f"{self._name} is no XML at line {error.lineno}: {expat.ErrorString(error.code)}"
            )
            raise MalformedError(message, code="xml") from error
        except (LookupError, ValueError) as error:  # an encoding that nobody knows
            message = f"{self._name} is no XML: {error}"
            raise MalformedError(message, code="xml") from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._left -= 1
        line = self._parser.CurrentLineNumber
        if self._depth > self._max_depth:
            message = f"{self._name} is nested deeper than {self._max_depth} at line {line}"
            raise MalformedError(message, code="too-deep")
        if self._left < 0 or len(attributes) > MAX_ATTRIBUTES:
            message = f"{self._name} has too many elements or attributes at line {line}"
            raise MalformedError(message, code="too-large")
        self._tree.start(_braced(tag), {_braced(key): value for key, value in attributes.items()})

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._tree.end(_braced(tag))

    def _refuse_doctype(self, *_: object) -> int:
        message = f"{self._name} has a document type at line {self._parser.CurrentLineNumber}"
        raise XmlUnsafeError(message)


def _braced(name: str) -> str:
    return f"{{{name}" if _SEPARATOR in name else name
