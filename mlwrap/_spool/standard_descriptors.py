"""Keep a process's standard descriptors 0 to 2 free of mlwrap's files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_STANDARD = (0, 1, 2)


@contextlib.contextmanager
def above_standard_descriptors() -> Iterator[None]:
    """Give files that are opened in the block a descriptor above 2, even if 0 to 2 were closed at the start.

    A child process uses the files with these numbers as its input and output, and would write into them.
    """
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):  # too many open files: then 0 to 2 are all in use
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
