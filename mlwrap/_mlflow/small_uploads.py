"""Files go to a store behind MLflow's server in requests that cost as little as they can.

For each file MLflow's client works out anew who asks, how and where. Here it does so for the first one, and
what it sent then is the head of the requests for the others. What is large, what other stores take and what
has to be signed one by one is its own to send.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import requests
import urllib3
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import http_request
from requests.utils import requote_uri

from mlwrap._mlflow.errors import request_timeout

_MAX_SIZE = 1 << 20  # bytes; to send what is larger takes its time in any case
_KIND = {"Content-Type": "application/octet-stream"}


class _Head(NamedTuple):
    """What is alike in the requests for all files of a location, whose own URL ``request`` has."""

    request: requests.PreparedRequest
    adapter: Any
    pool: urllib3.HTTPConnectionPool
    folder: str
    headers: dict[str, Any]
    timeout: float

    def request_for(self, path: str) -> requests.PreparedRequest:
        """The request for one file, as what went wrong with it is told."""
        request = self.request.copy()
        request.prepare_url(f"{request.url}/{path}", None)
        return request


class SmallFileUploader:
    """Uploads the files of one artifact location; several threads may.

    Args:
        store: MLflow's client of it.

    Attributes:
        store: The same.
    """

    def __init__(self, store: ArtifactRepository) -> None:
        self.store = store
        self._head: _Head | None = None
        self._alike = getattr(type(store), "log_artifact", None) is HttpArtifactRepository.log_artifact

    def upload(self, file: Path, path: str) -> None:
        """Upload one file, which is to have the relative ``path``.

        Raises:
            Exception: Of requests or of MLflow: it has not arrived, or nobody said so.
        """
        head = self._head
        if not self._alike or file.stat().st_size > _MAX_SIZE:
            folder = path.rpartition("/")[0] or None
            self.store.log_artifact(str(file), folder)  # type: ignore[no-untyped-call] # MLflow's
        elif head is None:
            self._first(file, path)
        else:
            try:
                self._like(head, file, path)
            except BaseException:
                self._head = None  # the next one may have to be sent in another way
                raise

    def _as_ever(self, file: Path, path: str) -> None:
        self._alike = False
        self.upload(file, path)

    def _first(self, file: Path, path: str) -> None:
        creds = get_default_host_creds(self.store.artifact_uri)  # type: ignore[no-untyped-call] # MLflow's
        if creds.auth or creds.aws_sigv4 or creds.use_databricks_sdk or creds.client_cert_path:
            self._as_ever(file, path)
            return
        data = file.read_bytes()
        response: requests.Response = http_request(creds, f"/{path}", "PUT", data=data, extra_headers=_KIND)  # type: ignore[no-untyped-call] # MLflow's
        augmented_raise_for_status(response)  # type: ignore[no-untyped-call] # MLflow's
        if response.history:  # it was sent on to somewhere else
            self._alike = False
            return
        self._head = _head(response, self.store.artifact_uri, creds.verify)

    def _like(self, head: _Head, file: Path, path: str) -> None:
        data = file.read_bytes()
        try:
            answer = head.pool.urlopen(
                "PUT",
                requote_uri(f"{head.folder}/{path}"),
                body=data,
                headers=head.headers,
                retries=head.adapter.max_retries,
                redirect=False,
                assert_same_host=False,
                timeout=head.timeout,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:  # by MLflow's words for it it is sorted
            url = head.request_for(path).url
            raise MlflowException(f"API request to {url} failed with exception {error}") from error
        if answer.status != requests.codes.ok:
            response = head.adapter.build_response(head.request_for(path), answer)
            augmented_raise_for_status(response)  # type: ignore[no-untyped-call] # MLflow's
            if response.is_redirect:
                self._as_ever(file, path)


def _head(response: requests.Response, location: str, verify: Any) -> _Head:
    """From the answer to the first file: made anew for each it would be a quarter of what one costs."""
    sent, adapter = response.request.copy(), response.connection
    sent.prepare_url(location.rstrip("/"), None)
    options = requests.Session().merge_environment_settings(str(sent.url), {}, False, verify, None)
    return _Head(
        request=sent,
        adapter=adapter,
        pool=adapter.get_connection_with_tls_context(
            sent, options["verify"], proxies=options["proxies"], cert=options["cert"]
        ),
        folder=adapter.request_url(sent, options["proxies"]),
        headers={name: value for name, value in sent.headers.items() if name != "Content-Length"},
        timeout=request_timeout.get(),
    )
