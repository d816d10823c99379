"""What it means when MLflow's client raises: nobody answered, the server said no, or a bug of ours."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import traceback
from collections.abc import Iterator

import urllib3
from mlflow.exceptions import MlflowException

from mlwrap._passwords import hidden
from mlwrap.errors import DeliveryError, Refused, Unreachable

# MLflow's own patience is four minutes a call, and a request that it sends again makes a second run where the
# first answer was lost. So its client asks once, and what comes again is the delivery, which looks first.
_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# To print where a run can be seen it asks for the run first; ours is a report of our own.
_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
_TIMEOUT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # seconds; the user's own goes before it

_UNREACHABLE = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
_OF_VALUE = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
_NEVER = {"FEATURE_DISABLED", "NOT_IMPLEMENTED"}  # which MLflow turns into 500: this store can't
_BAD_REQUEST, _TOO_LARGE = 400, 413
_AGAIN = {408, 429, 500, 502, 503, 504}
# What MLflow's client says where there was no answer, or one that is not MLflow's, such as a proxy's page.
_NO_ANSWER = ("failed with exception", "failed with timeout exception", "not in a valid JSON format")
_LOCKED = "database is locked"
_STATUS = re.compile(r"failed with error code (\d{3})")


class NotOffered(Refused):
    """The server knows no such request: it is older than the client."""


def sort_error(error: Exception, tracking_uri: str) -> DeliveryError:
    """The error of ours that says what ``error``, raised by MLflow's client, means for a delivery."""
    text = hidden(str(error))
    status, code = http_status(error), getattr(error, "error_code", None)
    no_answer = _LOCKED in text or (
        isinstance(error, MlflowException) and any(words in text for words in _NO_ANSWER)
    )
    if no_answer or code in _UNREACHABLE or (status in _AGAIN and code not in _NEVER):
        return Unreachable(f"MLflow at {tracking_uri} did not answer: {text}", _retry_after(error))
    if code == "ENDPOINT_NOT_FOUND":
        return NotOffered(f"MLflow at {tracking_uri} is too old: {text}")
    if status is not None:
        of_value = code in _OF_VALUE or status in {_BAD_REQUEST, _TOO_LARGE}
        return Refused(f"MLflow at {tracking_uri} refused: {text}", of_value=of_value)
    if isinstance(error, OSError):
        return Unreachable(f"MLflow at {tracking_uri} could not be reached: {text}")
    if isinstance(error, (ValueError, TypeError, OverflowError)):  # its client can't even send it
        return Refused(f"MLflow's client refused: {text}", of_value=True)
    return DeliveryError(f"MLflow at {tracking_uri}: {type(error).__name__}: {text}")


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status of an answer; MLflow's exceptions turn those that they do not know into 500."""
    if isinstance(error, MlflowException):
        said = _STATUS.search(str(error))
        return int(said[1]) if said else int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    response = getattr(error, "response", None)  # of a requests.HTTPError, which uploads raise
    return int(response.status_code) if response is not None else None


def _retry_after(error: BaseException | None) -> float | None:
    """For how many seconds the server wants to be left alone.

    MLflow's client drops the answer that says so; it is still in the frames that the error came through.
    """
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            response = frame.f_locals.get("response")
            if isinstance(response, urllib3.HTTPResponse):
                with contextlib.suppress(urllib3.exceptions.InvalidHeader):
                    return urllib3.Retry().get_retry_after(response)
        error = error.__context__
    return None


_lock = threading.Lock()
_inside = 0
_before: dict[str, str | None] = {}


@contextlib.contextmanager
def asking_once() -> Iterator[None]:
    """MLflow's client sends each request once, not for ever, and prints nothing; for all threads inside."""
    global _inside  # noqa: PLW0603 - as the environment is, which is where MLflow looks
    with _lock:
        _inside += 1
        if _inside == 1:
            wanted = {**{k: os.environ.get(k, v) for k, v in _TIMEOUT.items()}, **_ONCE, **_QUIET}
            _before.update({name: os.environ.get(name) for name in wanted})
            os.environ.update(wanted)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for name, value in _before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
