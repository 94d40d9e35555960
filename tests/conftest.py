"""What all tests of the checkout need of the process that they run in."""

import signal

from structlog.dev import ConsoleRenderer, plain_traceback

# A shell starts a background job with Ctrl-C ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test provokes is logged: a coloured traceback with the values in it takes seconds.
ConsoleRenderer.get_active().exception_formatter = plain_traceback
