"""What it means when MLflow's client raises: nobody answered, the server said no, or a bug of ours."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import urllib3
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import client as tracking
from mlflow.utils import rest_utils

from mlwrap._journal.uri_passwords import mask_passwords
from mlwrap.errors import DeliveryError, Refused, Unreachable

P = ParamSpec("P")
R = TypeVar("R")

_UNREACHABLE = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
_OF_VALUE = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
_NEVER = {"FEATURE_DISABLED", "NOT_IMPLEMENTED"}  # which MLflow turns into 500: this store can't
_BAD_REQUEST, _TOO_LARGE = 400, 413
_AGAIN = {408, 429, 500, 502, 503, 504}
# What MLflow's client says where there was no answer, or one that is not MLflow's, such as a proxy's page.
_NO_ANSWER = ("failed with exception", "failed with timeout exception", "not in a valid JSON format")
# What a store says that is too busy; MLflow turns all but the first into 400, as if a value were wrong.
_BUSY = ("database is locked", "QueuePool limit of size", "connection already closed")
_STATUS = re.compile(r"failed with error code (\d{3})")


class EndpointMissing(Refused):
    """The server knows no such request: it is older than the client."""


def classify_error(error: Exception, tracking_uri: str) -> DeliveryError:
    """The error of ours that says what ``error``, raised by MLflow's client, means for a delivery."""
    text = mask_passwords(str(error))
    status, code = http_status(error), getattr(error, "error_code", None)
    no_answer = any(words in text for words in _BUSY) or (
        isinstance(error, MlflowException) and any(words in text for words in _NO_ANSWER)
    )
    if no_answer or code in _UNREACHABLE or (status in _AGAIN and code not in _NEVER):
        return Unreachable(f"MLflow at {tracking_uri} did not answer: {text}", _retry_after(error))
    if code == "ENDPOINT_NOT_FOUND":
        return EndpointMissing(f"MLflow at {tracking_uri} is too old: {text}")
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


_once: contextvars.ContextVar[bool] = contextvars.ContextVar("mlwrap_once", default=False)


class _ForDelivery:
    """A setting of MLflow's, with another value for the requests of a delivery.

    MLflow reads it from the environment at each request. To change that would change it for all the process,
    in which the user's own code may ask MLflow, too: http_request() has a parameter for each, but nothing
    above it hands one on, and a store registered under a scheme is everybody's. So the modules that make the
    requests are given this in place of the setting; to all other code it says what the setting says.
    """

    def __init__(self, real: Any, value: Callable[[Any], Any]) -> None:
        self._real = real
        self._value = value

    def get(self) -> Any:
        """The value, for whoever asks."""
        return self._value(self._real) if _once.get() else self._real.get()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __str__(self) -> str:
        return str(self._real)


_SECONDS = 20  # the user's own go before it


def _seconds(real: Any) -> Any:
    return real.get() if real.is_set() else _SECONDS


def _put(module: ModuleType, name: str, value: Callable[[Any], Any]) -> _ForDelivery:
    setting = _ForDelivery(getattr(module, name), value)
    setattr(module, name, setting)
    return setting


# MLflow's own patience is four minutes a call, and a request that it sends again makes a second run where the
# first answer was lost. So its client asks once, and what comes again is the delivery, which looks first.
_put(rest_utils, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", lambda _: 0)
request_timeout = _put(rest_utils, "MLFLOW_HTTP_REQUEST_TIMEOUT", _seconds)
# To print where a run can be seen it asks for the run first; ours is a report of our own.
_put(tracking, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", lambda _: True)


@contextlib.contextmanager
def without_client_retries(*, once: bool = True) -> Iterator[None]:
    """MLflow's client sends each request of this thread or task once, not for ever, and prints nothing."""
    token = _once.set(once or _once.get())
    try:
        yield
    finally:
        _once.reset(token)


def asked_without_retries() -> bool:
    """Whether this code stands within :func:`without_client_retries`."""
    return _once.get()


def classifies_errors(method: Callable[P, R]) -> Callable[P, R]:
    """For methods that ask MLflow: sorts their errors, and asks once where the object says ``asks_once``."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        client: Any = args[0]
        try:
            with without_client_retries(once=client.asks_once):  # here, for it may be another thread
                try:
                    return method(*args, **kwargs)
                except MlflowException as error:
                    if error.error_code != "UNAUTHENTICATED" and "error code 401" not in str(error):
                        raise
                    # MLflow reads the credentials again, which may have been renewed.
                    return method(*args, **kwargs)
        except DeliveryError:
            raise
        except Exception as error:
            raise classify_error(error, client.tracking_uri) from error

    return call
