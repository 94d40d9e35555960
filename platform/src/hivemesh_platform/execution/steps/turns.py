"""Which capability may claim how much where there is room for few more steps. Pure."""

import math
from collections.abc import Callable, Mapping
from itertools import count

from hivemesh_platform.execution.ledger.port import Claim


class Turns:
    """Asks first for those that have found nothing for the longest; what is short is shared."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._last: dict[str, int] = {}  # by capability, when it has found something

    def claim(
        self, free: Mapping[str, int], room: int, ask: Callable[[str, int], list[Claim]]
    ) -> list[Claim]:
        """Ask for as many as are free of each, `room` in all; what some leave is for the others."""
        claims: list[Claim] = []
        while free and room > 0:
            more: dict[str, int] = {}
            for asked, name in enumerate(sorted(free, key=self._when)):
                limit = min(free[name], math.ceil(room / (len(free) - asked)))
                found = ask(name, limit) if limit else []
                if found:
                    self._last[name] = next(self._numbers)
                taken = min(limit, len(found))  # small jobs that travel together share a place
                room -= taken
                if taken == limit < free[name]:
                    more[name] = free[name] - limit
                claims += found
            free = more
        return claims

    def _when(self, capability: str) -> int:
        return self._last.get(capability, 0)
