"""Files that are sent to a store behind a server arrive as MLflow's client would have sent them."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from mlwrap._mlflow import small_uploads
from mlwrap._mlflow.small_uploads import SmallFileUploader

NAMES = ["plain.txt", "two words.txt", "folder/deep/a%20b.bin", "größe.json", "empty", "plus+and&.csv"]


class Kept(BaseHTTPRequestHandler):
    """Keeps what it is sent, by the path as it came; sends on what begins with /moved; breaks, or refuses."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Transfer-Encoding" in self.headers:  # as MLflow's client sends an empty file
            assert self.rfile.readline() + self.rfile.readline() == b"0\r\n\r\n"
        moved = self.path.startswith("/moved")
        failed = (
            500 if self.path in self.server.broken else 403 if self.path in self.server.forbidden else None
        )
        if not moved and not failed:
            self.server.files[self.path] = body
            self.server.seen.append(dict(self.headers))
        self.server.sent_on += moved
        self.send_response(307 if moved else failed or 200)
        if moved:
            self.send_header("Location", self.path.removeprefix("/moved"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server; its threads go with the process, for MLflow's client keeps its connections."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    with ThreadingHTTPServer(("127.0.0.1", 0), Kept) as made:
        made.files, made.seen, made.sent_on = {}, [], 0
        made.broken, made.forbidden = set(), set()
        made.uri = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often MLflow's client has worked out what is to be sent with a request."""
    times: list[int] = []
    monkeypatch.setattr(
        "mlflow.tracking.request_header.registry.resolve_request_headers",
        lambda request_headers=None: times.append(1) or {"X-Ours": "yes"},
    )
    return times


def made(folder: Path) -> list[Path]:
    """A file of each name, with its name and more in it, and one with nothing."""
    files = [folder / name for name in NAMES]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if file.name == "empty" else file.name.encode() + bytes(range(256)))
    return files


@pytest.mark.parametrize("first", range(len(NAMES)))
def test_files_arrive_as_mlflow_would_have_sent_them(server: Any, tmp_path: Path, first: int):
    """Whichever comes first; with the same content, at the same path."""
    files = made(tmp_path)
    theirs = HttpArtifactRepository(f"{server.uri}/theirs")
    ours = SmallFileUploader(HttpArtifactRepository(f"{server.uri}/ours"))
    for file in (files[first], *files):
        path = file.relative_to(tmp_path).as_posix()
        theirs.log_artifact(str(file), path.rpartition("/")[0] or None)
        ours.upload(file, path)
    kept = {path: body for path, body in server.files.items() if path.startswith("/theirs")}
    assert len(kept) == len(NAMES)
    assert server.files == kept | {path.replace("/theirs", "/ours"): body for path, body in kept.items()}


def test_who_asks_is_worked_out_once_and_said_each_time(
    server: Any, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
):
    """A name and a password, and what plugins add."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "engine")
    ours = SmallFileUploader(HttpArtifactRepository(f"{server.uri}/ours"))
    for file in made(tmp_path):
        ours.upload(file, file.relative_to(tmp_path).as_posix())
    assert len(asked) == 1
    expected = "Basic " + base64.b64encode(b"ada:engine").decode()
    assert [head["Authorization"] for head in server.seen] == [expected] * len(NAMES)
    assert all(head["X-Ours"] == "yes" for head in server.seen)


def test_after_a_failure_it_is_worked_out_anew(server: Any, tmp_path: Path, asked: list[int]):
    """A token may have been renewed in the meantime."""
    ours = SmallFileUploader(HttpArtifactRepository(f"{server.uri}/ours"))
    one, *_, two = made(tmp_path)
    ours.upload(one, one.name)
    server.broken.add(f"/ours/{two.name}")
    with pytest.raises(MlflowException, match=r"failed with exception .*500") as failure:
        ours.upload(two, two.name)
    assert f"{server.uri}/ours/{two.name}" in str(failure.value)
    assert len(asked) == 1
    server.broken.clear()
    ours.upload(two, two.name)
    assert len(asked) == 2
    assert server.files[f"/ours/{two.name}"] == two.read_bytes()


def test_a_refusal_names_the_file(server: Any, tmp_path: Path):
    """By its whole address, as MLflow's client does."""
    ours = SmallFileUploader(HttpArtifactRepository(f"{server.uri}/ours"))
    one, two, *_ = made(tmp_path)
    ours.upload(one, one.name)
    server.forbidden.add("/ours/two%20words.txt")
    with pytest.raises(requests.HTTPError, match=f"403 .*{server.uri}/ours/two%20words.txt"):
        ours.upload(two, two.name)


@pytest.mark.parametrize("moved", ["all", "later"])
def test_what_is_sent_on_arrives(server: Any, tmp_path: Path, moved: str):
    """By a server that has another place for it: MLflow's client goes there."""
    ours = SmallFileUploader(HttpArtifactRepository(f"{server.uri}{'/moved' if moved == 'all' else ''}/ours"))
    one, *_, two, three = made(tmp_path)
    ours.upload(one, one.name)
    if moved == "later":
        ours.store.artifact_uri = f"{server.uri}/moved/ours"
        assert ours._shared is not None
        ours._shared = ours._shared._replace(folder="/moved/ours")
    ours.upload(two, two.name)
    ours.upload(three, three.name)
    assert server.sent_on == 3
    assert server.files == {f"/ours/{file.name}": file.read_bytes() for file in (one, two, three)}


def test_what_is_signed_or_large_is_mlflows_to_send(
    server: Any, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Its client works all of it out for each."""
    one, two, three, *_ = made(tmp_path)
    store = HttpArtifactRepository(f"{server.uri}/ours")
    monkeypatch.setattr(small_uploads, "_MAX_SIZE", 10)
    large = SmallFileUploader(store)
    for file in (one, two, three):
        large.upload(file, file.name)
    assert len(asked) == 3
    monkeypatch.undo()
    signs = SmallFileUploader(store)
    creds = small_uploads.get_default_host_creds(store.artifact_uri)
    creds.auth = "a plugin's"
    monkeypatch.setattr(small_uploads, "get_default_host_creds", lambda _: creds)
    for file in (one, two):
        signs.upload(file, file.name)
    assert signs._shared is None
