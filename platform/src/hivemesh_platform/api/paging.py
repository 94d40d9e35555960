"""Pages of lists: one item more than asked for tells that there is a next page."""

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Query
from hivemesh_sdk.contracts.api import Page

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=500)]
_NUMBER = re.compile(r"[0-9]{1,18}")
LARGEST = 2**53 - 1  # that every JSON reader has exactly
Offset = Annotated[int, Query(ge=0, le=LARGEST)]


def number(text: str) -> int | None:
    """Read a number of a place in a list; None where it is none."""
    return int(text) if _NUMBER.fullmatch(text) else None


def page_of(found: list[T], limit: int, key: Callable[[T], str]) -> Page[T]:
    """Cut to `limit`; the next page begins behind the key of the last item."""
    items = found[:limit]
    return Page(items=items, next=key(items[-1]) if len(found) > limit else None)


def offset_page(found: list[T], limit: int, offset: int) -> Page[T]:
    """Cut to `limit`; the next page begins at the next offset."""
    more = len(found) > limit
    return Page(items=found[:limit], next=str(offset + limit) if more else None)
