"""Names of signals, as people know them."""

import signal


def name_of(number: int) -> str:
    """Such as SIGKILL; the number itself where it has no name, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
