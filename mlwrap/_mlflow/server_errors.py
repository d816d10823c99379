"""Classify the errors of MLflow's client: no answer, a refusal, or a bug in mlwrap."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import mlflow
import urllib3
from mlflow.exceptions import MlflowException

from mlwrap._journal.uri_passwords import mask_passwords
from mlwrap._mlflow.artifact_stores.errors import RETRYABLE_STATUSES, classify_store_error
from mlwrap._mlflow.undocumented import MAX_RETRIES, PRINTS_NO_URL, REQUEST_TIMEOUT, UndocumentedName
from mlwrap.errors import DeliveryError, Refused, Unreachable

P = ParamSpec("P")
R = TypeVar("R")

_UNREACHABLE = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
_VALUE_CODES = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
_UNSUPPORTED_CODES = {"FEATURE_DISABLED", "NOT_IMPLEMENTED"}  # MLflow reports them as HTTP 500
_BAD_REQUEST, _NOT_FOUND, _TOO_LARGE = 400, 404, 413
# MLflow's client says this where no answer came, or one that is not MLflow's, such as a proxy's page.
_NO_ANSWER = ("failed with exception", "failed with timeout exception", "not in a valid JSON format")
# A store that is too busy says this; MLflow turns all but the first into 400, as if a value were wrong.
_BUSY = ("database is locked", "QueuePool limit of size", "connection already closed")
_PAGE = re.compile(r"'?\s*<(?:!doctype|html)\b.*", re.IGNORECASE | re.DOTALL)
_STATUS = re.compile(r"failed with error code (\d{3})")
# An MLflow server answers a request that it does not know with Flask's page; a proxy's page is another.
_FLASK_PAGE = "The requested URL was not found on the server. If you entered the URL manually"
_REQUEST_OF_MLFLOW_3 = re.compile(r"endpoint \S*/mlflow/(?:logged-models|runs/outputs)")
_READ_ONLY = "attempt to write a readonly database"
_PRESIGNED_ONLY = '"artifacts_presigned_only": true'
_HAS_PRESIGNED = tuple(int(number) for number in mlflow.__version__.split(".")[:2]) >= (3, 18)


class EndpointMissing(Refused):
    """The server does not know the request: it is older than the client."""


def classify_error(error: Exception, tracking_uri: str) -> DeliveryError:
    """Return the mlwrap error that tells what ``error`` of MLflow's client means for delivery."""
    if (of_store := classify_store_error(error)) is not None:
        return of_store
    text = _PAGE.sub("(a page of HTML)", mask_passwords(str(error)))
    status, code = http_status(error), getattr(error, "error_code", None)
    if _READ_ONLY in text:  # the rest is SQL
        return Unreachable(f"the store {tracking_uri} can't be written: {_READ_ONLY}")
    no_answer = any(words in text for words in _BUSY) or (
        isinstance(error, MlflowException) and any(words in text for words in _NO_ANSWER)
    )
    if no_answer or code in _UNREACHABLE or (status in RETRYABLE_STATUSES and code not in _UNSUPPORTED_CODES):
        return Unreachable(f"MLflow at {tracking_uri} did not answer: {text}", _retry_after(error))
    if _is_foreign_page(error, status):
        return Unreachable(
            f"the answer from {tracking_uri} is not MLflow's: {text}. Check the tracking URI, its path, "
            "and the proxy, if there is one"
        )
    if code == "ENDPOINT_NOT_FOUND":
        return EndpointMissing(f"MLflow at {tracking_uri} is too old: {text}")
    if _PRESIGNED_ONLY in text:
        if _HAS_PRESIGNED:  # its question what the server takes had no answer
            return Unreachable(
                f"MLflow at {tracking_uri} did not say that it takes presigned URLs alone: {text}"
            )
        return Refused(
            f"MLflow at {tracking_uri} takes files by presigned URLs alone, and the client here, MLflow "
            f"{mlflow.__version__}, has none. Install the server's version of MLflow"
        )
    if status is not None:
        of_value = code in _VALUE_CODES or status in {_BAD_REQUEST, _TOO_LARGE}
        return Refused(f"MLflow at {tracking_uri} refused: {text}", of_value=of_value)
    if isinstance(error, OSError) and error.filename is not None:
        return Unreachable(f"a file of MLflow at {tracking_uri} can't be read or written: {text}")
    if isinstance(error, OSError):
        return Unreachable(f"MLflow at {tracking_uri} could not be reached: {text}")
    if isinstance(error, (ValueError, TypeError, OverflowError)):  # the client can't even send the request
        return Refused(f"MLflow's client refused: {text}", of_value=True)
    return DeliveryError(f"MLflow at {tracking_uri}: {type(error).__name__}: {text}")


def _is_foreign_page(error: Exception, status: int | None) -> bool:
    """Return whether a 404 is a proxy's or another server's, and not that of an old MLflow."""
    text = str(error)
    if status != _NOT_FOUND:
        return False
    if not isinstance(error, MlflowException):  # of an upload or download, which every MLflow answers in JSON
        return _PAGE.search(text) is not None
    is_old = _FLASK_PAGE in text and _REQUEST_OF_MLFLOW_3.search(text) is not None
    return _STATUS.search(text) is not None and not is_old


def http_status(error: BaseException | None) -> int | None:
    """Return the HTTP status of a response; MLflow's exceptions report a status they do not know as 500."""
    if isinstance(error, MlflowException):
        match = _STATUS.search(str(error))
        return int(match[1]) if match else int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    response = getattr(error, "response", None)  # of a requests.HTTPError, which uploads raise
    status = getattr(response, "status_code", None)  # boto's errors have a dictionary instead
    return int(status) if status is not None else None


def _retry_after(error: BaseException | None) -> float | None:
    """Return the number of seconds that the server asked to wait before a retry.

    MLflow's client drops the response that says so; it is still in the frames that raised the exception.
    """
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            response = frame.f_locals.get("response")
            response = getattr(response, "raw", response)  # MLflow 3.18 has requests' response there
            if isinstance(response, urllib3.HTTPResponse):
                with contextlib.suppress(urllib3.exceptions.InvalidHeader):
                    return urllib3.Retry().get_retry_after(response)
        error = error.__context__
    return None


_without_retries: contextvars.ContextVar[bool] = contextvars.ContextVar("mlwrap_once", default=False)


class _DeliverySetting:
    """A setting of MLflow that has another value for delivery's requests.

    MLflow reads the setting from the environment at each request. Changing the environment would affect the
    whole process, including the user's own MLflow calls. http_request() takes each setting as a parameter,
    but no caller passes it on, and a store registered under a scheme is shared by all code. So this object
    replaces the setting in the modules that make the requests; all other code gets the original value.
    """

    def __init__(self, real: Any, value: Callable[[Any], Any]) -> None:
        self._real = real
        self._value = value

    def get(self) -> Any:
        """Return delivery's value within :func:`without_client_retries`, else the setting's own."""
        return self._value(self._real) if _without_retries.get() else self._real.get()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __str__(self) -> str:
        return str(self._real)


_TIMEOUT_SECONDS = 20  # a value that the user set overrides it


def _user_timeout_or_default(real: Any) -> Any:
    return real.get() if real.is_set() else _TIMEOUT_SECONDS


def _replace_setting(setting: UndocumentedName, value: Callable[[Any], Any]) -> None:
    if (real := setting.find()) is not None:
        setting.replace(_DeliverySetting(real, value))


# MLflow retries a call for four minutes, and a repeated create request makes a second run if the first
# response was lost. So its client sends each request once, and delivery retries after looking for the run.
_replace_setting(MAX_RETRIES, lambda _: 0)
_replace_setting(REQUEST_TIMEOUT, _user_timeout_or_default)
# MLflow requests the run to print its URL; mlwrap prints a report of its own.
_replace_setting(PRINTS_NO_URL, lambda _: True)


@contextlib.contextmanager
def without_client_retries(*, once: bool = True) -> Iterator[None]:
    """Make MLflow's client send each request of this thread or task once, without retries or printed URLs."""
    token = _without_retries.set(once or _without_retries.get())
    try:
        yield
    finally:
        _without_retries.reset(token)


def asked_without_retries() -> bool:
    """Return whether the caller is within :func:`without_client_retries`."""
    return _without_retries.get()


def classifies_errors(method: Callable[P, R]) -> Callable[P, R]:
    """Classify the errors of a method that calls MLflow, without retries where ``asks_once`` is set."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        client: Any = args[0]
        try:
            with without_client_retries(once=client.asks_once):  # set here: this may be another thread
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
