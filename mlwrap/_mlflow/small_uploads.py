"""Upload small files through MLflow's server with as little work per request as possible.

MLflow's client works out credentials, adapter and URL anew for each file. This module lets it do so for the
first file and reuses the result for the others. MLflow's client uploads large files, files for other stores
and files whose requests are signed one by one.
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

from mlwrap._mlflow.server_errors import request_timeout

_MAX_SIZE = 1 << 20  # bytes; for larger files the transfer itself takes most of the time
_CONTENT_TYPE = {"Content-Type": "application/octet-stream"}


class _SharedRequest(NamedTuple):
    """The parts that the requests for all files of a location share; ``request`` has the location's URL."""

    request: requests.PreparedRequest
    adapter: Any
    pool: urllib3.HTTPConnectionPool
    folder: str
    headers: dict[str, Any]
    timeout: float

    def request_for(self, path: str) -> requests.PreparedRequest:
        """Return the request for one file, for use in an error message."""
        request = self.request.copy()
        request.prepare_url(f"{request.url}/{path}", None)
        return request


class SmallFileUploader:
    """Upload the files of one artifact location; several threads may use one uploader.

    Args:
        store: MLflow's artifact repository for the location.

    Attributes:
        store: The same repository.
    """

    def __init__(self, store: ArtifactRepository) -> None:
        self.store = store
        self._shared: _SharedRequest | None = None
        self._can_share = getattr(type(store), "log_artifact", None) is HttpArtifactRepository.log_artifact

    def upload(self, file: Path, path: str) -> None:
        """Upload one file to the relative ``path``.

        Raises:
            Exception: An error of requests or MLflow: the file did not arrive, or no response confirmed it.
        """
        shared = self._shared
        if not self._can_share or file.stat().st_size > _MAX_SIZE:
            folder = path.rpartition("/")[0] or None
            self.store.log_artifact(str(file), folder)  # type: ignore[no-untyped-call] # MLflow's
        elif shared is None:
            self._upload_first(file, path)
        else:
            try:
                self._upload_like_first(shared, file, path)
            except BaseException:
                self._shared = None  # the next file may need another request
                raise

    def _upload_by_mlflow(self, file: Path, path: str) -> None:
        self._can_share = False
        self.upload(file, path)

    def _upload_first(self, file: Path, path: str) -> None:
        creds = get_default_host_creds(self.store.artifact_uri)  # type: ignore[no-untyped-call] # MLflow's
        if creds.auth or creds.aws_sigv4 or creds.use_databricks_sdk or creds.client_cert_path:
            self._upload_by_mlflow(file, path)
            return
        data = file.read_bytes()
        response: requests.Response = http_request(
            creds, f"/{path}", "PUT", data=data, extra_headers=_CONTENT_TYPE
        )  # type: ignore[no-untyped-call] # MLflow's
        augmented_raise_for_status(response)  # type: ignore[no-untyped-call] # MLflow's
        if response.history:  # a redirect
            self._can_share = False
            return
        self._shared = _shared_request(response, self.store.artifact_uri, creds.verify)

    def _upload_like_first(self, shared: _SharedRequest, file: Path, path: str) -> None:
        data = file.read_bytes()
        try:
            raw_response = shared.pool.urlopen(
                "PUT",
                requote_uri(f"{shared.folder}/{path}"),
                body=data,
                headers=shared.headers,
                retries=shared.adapter.max_retries,
                redirect=False,
                assert_same_host=False,
                timeout=shared.timeout,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:  # classify_error() looks for these words
            url = shared.request_for(path).url
            raise MlflowException(f"API request to {url} failed with exception {error}") from error
        if raw_response.status != requests.codes.ok:
            response = shared.adapter.build_response(shared.request_for(path), raw_response)
            augmented_raise_for_status(response)  # type: ignore[no-untyped-call] # MLflow's
            if response.is_redirect:
                self._upload_by_mlflow(file, path)


def _shared_request(response: requests.Response, location: str, verify: Any) -> _SharedRequest:
    """Derive the shared parts from the first response; doing so per file would add a quarter to its cost."""
    sent, adapter = response.request.copy(), response.connection
    sent.prepare_url(location.rstrip("/"), None)
    options = requests.Session().merge_environment_settings(str(sent.url), {}, False, verify, None)
    return _SharedRequest(
        request=sent,
        adapter=adapter,
        pool=adapter.get_connection_with_tls_context(
            sent, options["verify"], proxies=options["proxies"], cert=options["cert"]
        ),
        folder=adapter.request_url(sent, options["proxies"]),
        headers={name: value for name, value in sent.headers.items() if name != "Content-Length"},
        timeout=request_timeout.get(),
    )
