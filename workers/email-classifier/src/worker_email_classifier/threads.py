"""Keeps numpy's linear algebra to one thread. To be called before numpy is first imported."""

import os


def one_thread() -> None:
    """Ask OpenBLAS for a single thread, unless the environment says otherwise.

    The arrays here are small: more threads only wait for each other (five times the CPU time of
    training on a busy machine), round sums differently on every machine, and count as processes.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
