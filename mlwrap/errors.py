"""What can go wrong, as a tree: every message says what was expected, what came, and what to do.

::

    MlwrapError
    ├── OptionError (TypeError)    a wrong option, found before any training starts
    ├── RunStateError              something was asked of a run that has ended
    ├── SpoolError (OSError)       the spool can't be used
    ├── JournalError               a run folder can't be read
    ├── Diverged                   a metric is not finite, and that is to stop the training
    ├── SaveError                  a value can't be saved; carries it in ``.value``
    ├── LoadError                  a saved model can't be given back
    └── DeliveryError              MLflow could not be told
        ├── Unreachable            nobody answered: worth trying again
        └── Refused                the server said no: trying again changes nothing
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

__all__ = [
    "DeliveryError",
    "Diverged",
    "JournalError",
    "LoadError",
    "MlwrapError",
    "MlwrapWarning",
    "OptionError",
    "Refused",
    "RunStateError",
    "SaveError",
    "SpoolError",
    "Unreachable",
]


class MlwrapError(Exception):
    """The root of every error that mlwrap raises."""


class OptionError(MlwrapError, TypeError):
    """A wrong option, raised when a function is decorated or before a body starts."""


class RunStateError(MlwrapError):
    """Something was asked of a run that has already ended."""


class SpoolError(MlwrapError, OSError):
    """The folder that run folders live in can't be made, written or read."""


class JournalError(MlwrapError):
    """A run folder's journal can't be read, or was written by a newer mlwrap."""


class Diverged(MlwrapError):
    """A metric is NaN or infinite, and the setting ``nonfinite="stop"`` says that the training ends then."""


class SaveError(MlwrapError):
    """A value can't be saved.

    Attributes:
        value: The object that the training body returned, so that it is not lost with the error.
    """

    def __init__(self, message: str, value: object = None) -> None:
        super().__init__(message)
        self.value = value


class LoadError(MlwrapError):
    """A saved model can't be given back."""


class DeliveryError(MlwrapError):
    """MLflow could not be told about a run; its run folder stays in the spool."""


class Unreachable(DeliveryError):
    """Nobody answered at the tracking URI: worth trying again later.

    Attributes:
        retry_after: Seconds for which the server asked to be left alone, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(DeliveryError):
    """The tracking server said no: trying again without a change gives the same answer.

    Attributes:
        of_value: Whether it is something in the request that was refused, and not the run or the user.
    """

    def __init__(self, message: str, *, of_value: bool = False) -> None:
        super().__init__(message)
        self.of_value = of_value


class MlwrapWarning(UserWarning):
    """The one category of warnings that mlwrap emits; filter on it."""


def describe_error(error: BaseException) -> str:
    """Type and message of an error; of one of ours the message, which says it all."""
    return message(error) if isinstance(error, MlwrapError) else f"{type(error).__name__}: {message(error)}"


def message(error: BaseException) -> str:
    """The message of an error, whatever its own ``__str__`` does."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - see above
        return "its message can't be read"


_HERE = str(Path(__file__).parent)


def warn(message: str) -> None:
    """Emit a :class:`MlwrapWarning` that points at the first line of code that is not mlwrap's own.

    Where warnings are turned into errors, or can't be shown, it goes to standard error instead: a warning of
    ours is about something that must not end the training.
    """
    level = 2
    frame = sys._getframe(1)  # noqa: SLF001 - as the standard library's own warnings do
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    try:
        warnings.warn(message, MlwrapWarning, stacklevel=level)
    except Exception:  # noqa: BLE001 - a hook of the user's own that shows warnings may raise anything
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"mlwrap: {message}\n")
