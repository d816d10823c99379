"""Keep a process's standard descriptors free of our files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_STANDARD = (0, 1, 2)


@contextlib.contextmanager
def above_standard_descriptors() -> Iterator[None]:
    """What is opened within gets a descriptor above 2, also where the process was started with 0 to 2 closed.

    A child process takes whatever has these numbers for its input and output, and would write into it.
    """
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):  # too many are open: then all of these are taken
            while not all(map(_is_open, _STANDARD)):
                taken.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
