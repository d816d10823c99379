"""The exceptions and the warning of mlwrap; each message says what was expected, what came, and what to do.

::

    MlwrapError
    ├── OptionError (TypeError)    an option is wrong; raised before any training starts
    ├── RunStateError              a method needs an open run, and the run has ended
    ├── SpoolError (OSError)       the spool can't be used
    ├── JournalError               a run folder can't be read
    ├── Diverged                   a metric is NaN or infinite, and ``nonfinite="stop"``
    ├── SaveError                  a value can't be saved; carries it in ``.value``
    ├── LoadError                  a saved model can't be loaded
    └── DeliveryError              the upload to MLflow failed
        ├── Unreachable            the server did not answer: a retry may succeed
        └── Refused                the server refused: a retry without a change fails again
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
    """The base class of every error that mlwrap raises."""


class OptionError(MlwrapError, TypeError):
    """An option is wrong; raised when a function is decorated or before the training function starts."""


class RunStateError(MlwrapError):
    """A method needs an open run, and the run has already ended."""


class SpoolError(MlwrapError, OSError):
    """The spool, the folder that holds the run folders, can't be made, written or read."""


class JournalError(MlwrapError):
    """A run folder's journal can't be read, or was written by a newer mlwrap."""


class Diverged(MlwrapError):
    """A metric is NaN or infinite, and the setting ``nonfinite="stop"`` ends the training."""


class SaveError(MlwrapError):
    """A value can't be saved.

    Attributes:
        value: The object that the training function returned, so that it is not lost with the error.
    """

    def __init__(self, message: str, value: object = None) -> None:
        super().__init__(message)
        self.value = value


class LoadError(MlwrapError):
    """A saved model can't be loaded."""


class DeliveryError(MlwrapError):
    """The upload of a run to MLflow failed; the run folder stays in the spool."""


class Unreachable(DeliveryError):
    """The server at the tracking URI did not answer; a later retry may succeed.

    Attributes:
        retry_after: Seconds that the server asked to wait before a retry, or ``None``.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(DeliveryError):
    """The tracking server refused the request; a retry without a change fails again.

    Attributes:
        of_value: Whether the server refused a value in the request, and not the run or the user.
    """

    def __init__(self, message: str, *, of_value: bool = False) -> None:
        super().__init__(message)
        self.of_value = of_value


class MlwrapWarning(UserWarning):
    """The category of all warnings that mlwrap emits; use it to filter them."""


def describe_error(error: BaseException) -> str:
    """Return the type and message of an error; for a :class:`MlwrapError` only the message."""
    return message(error) if isinstance(error, MlwrapError) else f"{type(error).__name__}: {message(error)}"


def message(error: BaseException) -> str:
    """Return the message of an error, even if its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - see above
        return "its message can't be read"


_HERE = str(Path(__file__).parent)


def warn(message: str) -> None:
    """Emit a :class:`MlwrapWarning` that points at the first line of code outside mlwrap.

    If warnings are turned into errors, or can't be shown, write it to standard error instead: nothing that
    mlwrap warns about may end the training.
    """
    level = 2
    frame = sys._getframe(1)  # noqa: SLF001 - the standard library's warnings do the same
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    try:
        warnings.warn(message, MlwrapWarning, stacklevel=level)
    except Exception:  # noqa: BLE001 - a user's hook that shows warnings may raise anything
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"mlwrap: {message}\n")
