"""Classify the errors of the packages with which MLflow's client reaches artifact stores.

The packages are optional, so their exceptions are recognized by module and name, without an import.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlwrap._journal.uri_passwords import mask_passwords
from mlwrap.errors import DeliveryError, Refused, Unreachable

_PACKAGES = ("boto3", "botocore", "azure", "paramiko", "google")
RETRYABLE_STATUSES = {408, 429, 500, 502, 503, 504}
# S3 answers with these codes, and status 400, where the same request succeeds later.
_RETRYABLE_CODES = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"}
# Base classes of the errors of a connection, in the packages above.
_CONNECTION_ERRORS = {
    *("HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseStreamingError"),
    *("ServiceRequestError", "ServiceResponseError", "RetriesExceededError", "TransportError"),
}
_PARAMIKO_REFUSALS = {"AuthenticationException", "BadHostKeyException"}


def classify_store_error(error: BaseException) -> DeliveryError | None:
    """Return what an artifact store's error means for delivery; ``None`` for an error of anything else."""
    found = _store_error(error)
    if found is None:
        return None
    text = mask_passwords(str(error))
    if _is_retryable(found):
        return Unreachable(f"the artifact store did not answer: {text}")
    return Refused(f"the artifact store refused: {text}")


def store_code(error: BaseException) -> str:
    """Return S3's code of an error, such as ``NoSuchUpload``; empty for any other error."""
    found = _store_error(error)
    response = getattr(found, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def _store_error(error: BaseException | None) -> BaseException | None:
    """Return the innermost error of such a package among the causes of an error."""
    found = None
    while error is not None:
        if _package(type(error)) in _PACKAGES:
            found = error
        error = error.__cause__ or error.__context__
    return found


def _is_retryable(error: BaseException) -> bool:
    status, names = _status(error), {cls.__name__ for cls in type(error).__mro__}
    if status is not None:
        return status in RETRYABLE_STATUSES or store_code(error) in _RETRYABLE_CODES
    if _package(type(error)) == "paramiko":
        return not names & _PARAMIKO_REFUSALS
    return bool(names & _CONNECTION_ERRORS)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:  # Azure's
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
