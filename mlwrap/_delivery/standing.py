"""Where does delivery stand while it asks MLflow?"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from mlwrap._journal import RunStarted

_standing = threading.RLock()


@contextlib.contextmanager
def working_folder(first: RunStarted) -> Iterator[None]:
    """Stand where the training stood: MLflow lays the artifacts of an SQL store beside it (``./mlruns``).

    MLflow looks at the working folder in two places: when it opens such a store, and when it makes an
    experiment there. A process has one working folder, so its threads take turns.
    """
    if first.tracking_uri.startswith(("http:", "https:")) or not Path(first.folder).is_dir():
        yield
        return
    with _standing:
        try:
            here = os.open(".", os.O_RDONLY)
        except OSError:  # ours was removed
            here = -1
        os.chdir(first.folder)
        try:
            yield
        finally:
            if here >= 0:
                os.fchdir(here)
                os.close(here)
