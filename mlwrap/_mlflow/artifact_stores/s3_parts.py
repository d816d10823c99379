"""``S3Parts``: the requests of S3's multipart uploads, with the settings that MLflow's client honours.

Only names that boto3 and MLflow document are used here: MLflow's own client begins a large file anew after
each interruption, and leaves the parts that had arrived in the store, unused.
"""

from __future__ import annotations

import json
import mimetypes
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mlwrap._mlflow.artifact_stores.errors import store_code
from mlwrap._mlflow.server_errors import asked_without_retries, classifies_errors
from mlwrap.errors import DeliveryError, Unreachable

_MISSING = {"NoSuchUpload", "NoSuchKey", "404"}
# The extra arguments that are repeated with each request of an upload; the others belong to its creation.
_OF_EACH_PART = {
    *("ChecksumAlgorithm", "ExpectedBucketOwner", "RequestPayer"),
    *("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5"),
}


class Part(NamedTuple):
    """A part that is in the store.

    Attributes:
        number: Its number in the upload, from 1.
        checksums: ``ETag``, and ``ChecksumCRC32`` or another if the store keeps one, as the store tells them.
        size: Its length in bytes; ``None`` if the store did not say.
    """

    number: int
    checksums: dict[str, str]
    size: int | None = None


class StoredObject(NamedTuple):
    """A complete file in the store, with its length in bytes and its ``ETag``."""

    size: int
    etag: str


class S3Parts:
    """Send the requests of multipart uploads below one artifact location.

    Args:
        location: The artifact location, an ``s3://`` URI.

    Attributes:
        tracking_uri: The location, which error messages name.
        asks_once: See :class:`Client`.
    """

    def __init__(self, location: str) -> None:
        parts = urlsplit(location)
        self.tracking_uri = location
        self.asks_once = asked_without_retries()
        self._bucket, self._root = parts.netloc, parts.path.removeprefix("/")
        self._client = _client()
        self._extra: dict[str, Any] = json.loads(os.environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
        if owner := os.environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER"):
            self._extra.setdefault("ExpectedBucketOwner", owner)
        # As boto3's own uploads do, unless AWS_REQUEST_CHECKSUM_CALCULATION says otherwise.
        if getattr(self._client.meta.config, "request_checksum_calculation", None) == "when_supported":
            self._extra.setdefault("ChecksumAlgorithm", "CRC32")
        self._each = {name: value for name, value in self._extra.items() if name in _OF_EACH_PART}
        self._all = {name: value for name, value in self._each.items() if name != "ChecksumAlgorithm"}

    @classifies_errors
    def create(self, path: str, file: Path) -> str:
        """Begin an upload to the relative ``path``, and return the store's id of it."""
        content_type, encoding = mimetypes.guess_type(file.name)
        headers = {"ContentType": content_type, "ContentEncoding": encoding}
        known = {name: value for name, value in headers.items() if value is not None}
        return str(
            self._client.create_multipart_upload(**self._object(path), **{**known, **self._extra})["UploadId"]
        )

    @classifies_errors
    def find(self, path: str) -> str:
        """Return the id of the newest upload to a path; empty if none is known."""
        key = self._object(path)
        owner = {name: value for name, value in self._all.items() if not name.startswith("SSE")}
        try:
            answer = self._client.list_multipart_uploads(Bucket=key["Bucket"], Prefix=key["Key"], **owner)
        except Exception as error:
            if store_code(error) != "AccessDenied":
                raise
            return ""
        uploads = [upload for upload in answer.get("Uploads", ()) if upload["Key"] == key["Key"]]
        return str(max(uploads, key=lambda upload: upload["Initiated"])["UploadId"]) if uploads else ""

    @classifies_errors
    def stored(self, path: str, upload_id: str) -> dict[int, Part] | None:
        """Return the parts that have arrived, by number; ``None`` if the store has no such upload."""
        parts: dict[int, Part] = {}
        pages = self._client.get_paginator("list_parts")
        try:
            for page in pages.paginate(**self._object(path), UploadId=upload_id, **self._all):
                for part in page.get("Parts", ()):
                    number = int(part["PartNumber"])
                    parts[number] = Part(number, _checksums(part), int(part["Size"]))
        except Exception as error:
            if store_code(error) not in _MISSING:
                raise
            return None
        return parts

    @classifies_errors
    def send(self, path: str, upload_id: str, number: int, data: bytes) -> Part:
        """Upload one part."""
        answer = self._client.upload_part(
            **self._object(path), UploadId=upload_id, PartNumber=number, Body=data, **self._each
        )
        if "ETag" not in answer:
            raise Unreachable("the answer to an uploaded part was not the artifact store's.")
        return Part(number, _checksums(answer), len(data))

    @classifies_errors
    def complete(self, path: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the file of the parts, in their order."""
        named = [{"PartNumber": part.number, **part.checksums} for part in parts]
        self._client.complete_multipart_upload(
            **self._object(path), UploadId=upload_id, MultipartUpload={"Parts": named}, **self._all
        )

    @classifies_errors
    def complete_object(self, path: str) -> StoredObject | None:
        """Return the complete file at a path; ``None`` if there is none, or the store does not tell."""
        try:
            answer = self._client.head_object(**self._object(path), **self._all)
        except Exception as error:
            if store_code(error) not in {*_MISSING, "403", "AccessDenied"}:
                raise
            return None
        return StoredObject(int(answer["ContentLength"]), str(answer["ETag"]).strip('"'))

    @classifies_errors
    def abort(self, path: str, upload_id: str) -> None:
        """Remove the parts that have arrived, so that they take no room; it is no error if there are none."""
        owner = {name: value for name, value in self._all.items() if not name.startswith("SSE")}
        try:
            self._client.abort_multipart_upload(**self._object(path), UploadId=upload_id, **owner)
        except Exception as error:
            if store_code(error) not in _MISSING:
                raise

    def _object(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": posixpath.join(self._root, path)}


def parts_of(location: str) -> S3Parts | None:
    """Return the multipart uploads of an artifact location; ``None`` if it is not on S3.

    Raises:
        DeliveryError: The settings can't be read.
    """
    if urlsplit(location).scheme != "s3":
        return None
    try:
        return S3Parts(location)
    except ImportError:  # MLflow's client says what to install
        return None
    except Exception as error:
        raise DeliveryError(f"the settings of the artifact store can't be used: {error}") from error


def _client() -> Any:
    """Return a client of boto3 as MLflow makes it, from the same settings."""
    import boto3  # noqa: PLC0415 - optional: only artifacts on S3 need it
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    signature = os.environ.get("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION") or "s3v4"
    ignores_tls = os.environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in {"true", "1"}
    style = os.environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"
    return boto3.session.Session().client(  # one of its own: boto3's default session is not for threads
        "s3",
        config=Config(
            signature_version=UNSIGNED if signature.lower() == "unsigned" else signature,
            s3={"addressing_style": style},
        ),
        endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"),
        verify=False if ignores_tls else None,
    )


def _checksums(answer: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value)
        for name, value in answer.items()
        if name == "ETag"
        or (name.startswith("Checksum") and name not in {"ChecksumType", "ChecksumAlgorithm"})
    }
