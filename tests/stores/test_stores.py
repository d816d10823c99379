"""A run with all that a run can have is delivered to each store of MLflow's, and comes back whole.

The page ``docs/reference/stores.md`` names what is tried here.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.cluster import KMeans

import mlwrap
from mlwrap._capture.artifact_names import storable_name
from tests.faults.servers import mlflow_server, postgres
from tests.stores.servers import BUCKET, S3_ENVIRONMENT, azurite, mariadb, needs, s3

FILES = {
    "plain.txt": b"plain",
    "two words.txt": b"with blanks",
    "hash#tag.txt": b"behind a hash",
    "für.txt": "grüße".encode(),
    "per%2Fcent.txt": b"an escape",
    "deep/er/numbers.bin": bytes(range(256)) * 100,
    "empty": b"",
}
X = np.random.default_rng(0).normal(size=(20, 3))


class Store(NamedTuple):
    """Where runs and their artifacts go.

    Attributes:
        uri: The tracking URI.
        artifacts: The artifact location of a new experiment; ``None`` for the store's own choice.
        environment: What a client needs.
    """

    uri: str
    artifacts: str | None = None
    environment: Mapping[str, str] = MappingProxyType({})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a folder of a server."""
    return tmp_path_factory.mktemp


@pytest.fixture(scope="module")
def sqlite(empty_store: Path, folder: Callable[[str], Path]) -> str:
    """An sqlite store."""
    path = folder("sqlite") / "mlflow.db"
    shutil.copy(empty_store, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def s3_environment(folder: Callable[[str], Path]) -> Iterator[dict[str, str]]:
    """An S3 server, and what its clients need."""
    with s3(folder("s3")) as url:
        yield {**S3_ENVIRONMENT, "MLFLOW_S3_ENDPOINT_URL": url}


@pytest.fixture(scope="module")
def postgres_uri() -> Iterator[str]:
    """A PostgreSQL server."""
    with postgres() as uri:
        yield uri


@pytest.fixture(scope="module")
def mysql_uri() -> Iterator[str]:
    """A MariaDB or MySQL server."""
    with mariadb() as uri:
        yield uri


def sqlite_and_disk(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Without any server."""
    return Store(request.getfixturevalue("sqlite"), str(folder))


def sqlite_and_s3(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Artifacts go from the client to S3."""
    environment = request.getfixturevalue("s3_environment")
    return Store(request.getfixturevalue("sqlite"), f"s3://{BUCKET}/direct", environment)


def postgres_by_psycopg2(request: pytest.FixtureRequest, folder: Path) -> Store:
    """The driver that most use."""
    needs("psycopg2")
    return Store(request.getfixturevalue("postgres_uri"), str(folder))


def postgres_by_psycopg3(request: pytest.FixtureRequest, folder: Path) -> Store:
    """The driver that SQLAlchemy 2.1 takes where the URI names none."""
    needs("psycopg")
    uri = request.getfixturevalue("postgres_uri").replace("+psycopg2:", "+psycopg:")
    return Store(uri, str(folder))


def mysql(request: pytest.FixtureRequest, folder: Path) -> Store:
    """MariaDB, where that is what is installed."""
    return Store(request.getfixturevalue("mysql_uri"), str(folder))


def sqlite_and_azure(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Artifacts go from the client to Azure's blob storage."""
    connection = request.getfixturevalue("azure_connection")
    environment = {"AZURE_STORAGE_CONNECTION_STRING": connection}
    location = f"wasbs://{BUCKET}@devstoreaccount1.blob.core.windows.net/direct"
    return Store(request.getfixturevalue("sqlite"), location, environment)


def server_on_postgres_before_s3(request: pytest.FixtureRequest, folder: Path) -> Store:
    """``mlflow server`` keeps artifacts for its clients, on S3, which these can't reach."""
    return Store(request.getfixturevalue("proxied_server"))


def server_before_s3_in_parts(request: pytest.FixtureRequest, folder: Path) -> Store:
    """The same server lets its clients write to S3, by URLs that it signs."""
    environment = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
    }
    return Store(request.getfixturevalue("proxied_server"), None, environment)


def server_on_mysql_beside_s3(request: pytest.FixtureRequest, folder: Path) -> Store:
    """``mlflow server`` keeps runs, and its clients write artifacts to S3 themselves."""
    return Store(request.getfixturevalue("direct_server"), None, request.getfixturevalue("s3_environment"))


def sqlite_and_a_server_of_artifacts(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Artifacts alone go over HTTP."""
    server = request.getfixturevalue("proxied_server")
    location = f"{server}/api/2.0/mlflow-artifacts/artifacts/apart"
    return Store(request.getfixturevalue("sqlite"), location)


@pytest.fixture(scope="module")
def azure_connection(folder: Callable[[str], Path]) -> Iterator[str]:
    """Azure's blob storage."""
    with azurite(folder("azure")) as connection:
        yield connection


@pytest.fixture(scope="module")
def proxied_server(
    postgres_uri: str, s3_environment: dict[str, str], folder: Callable[[str], Path]
) -> Iterator[str]:
    """An MLflow server that stands before S3."""
    made = folder("proxied")
    options = f"--artifacts-destination s3://{BUCKET}/proxied"
    with mlflow_server(postgres_uri, made, options, **s3_environment) as server:
        yield server.uri


@pytest.fixture(scope="module")
def direct_server(
    mysql_uri: str, s3_environment: dict[str, str], folder: Callable[[str], Path]
) -> Iterator[str]:
    """An MLflow server that says where artifacts go, and takes none."""
    options = f"--no-serve-artifacts --default-artifact-root s3://{BUCKET}/beside"
    with mlflow_server(mysql_uri, folder("direct"), options, **s3_environment) as server:
        yield server.uri


STORES = [
    sqlite_and_disk,
    sqlite_and_s3,
    postgres_by_psycopg2,
    postgres_by_psycopg3,
    server_on_postgres_before_s3,
    server_before_s3_in_parts,
    sqlite_and_a_server_of_artifacts,
    *(
        pytest.param(store, marks=pytest.mark.more)
        for store in (mysql, server_on_mysql_beside_s3, sqlite_and_azure)
    ),
]


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Each store, with an experiment "stores"."""
    made: Store = request.param(request, tmp_path / "artifacts")
    for name, value in {**made.environment, "MLFLOW_TRACKING_URI": made.uri}.items():
        monkeypatch.setenv(name, value)
    name = f"stores-{os.urandom(4).hex()}"
    MlflowClient(made.uri).create_experiment(name, made.artifacts)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    return made


def test_a_run_comes_back_whole(there: Store, tmp_path: Path, spool: Path):
    """Parameters, metrics, tags, artifacts in folders with odd names, a large one, and a model."""
    sent = tmp_path / "sent"
    for name, content in FILES.items():
        (sent / name).parent.mkdir(parents=True, exist_ok=True)
        (sent / name).write_bytes(content)
    (sent / "large.bin").write_bytes(os.urandom(1 << 20) * 17)  # more than one part
    trained = KMeans(3, n_init=1, random_state=0).fit(X)
    with mlwrap.model_run("whole", params={"units": 64, "text": "grüße 😀"}, tags={"team": "ü"}) as run:
        for step in range(20):
            run.log_metrics({"loss": 1 / (step + 1), "odd": math.nan if step == 3 else step}, step=step)
        run.log_artifact(sent, "a folder")
        run.log_text("hello", "notes/ü.txt")
        model = run.log_model(trained, register_as=f"stores-{os.urandom(4).hex()}@best")
    assert (run.status, model.status) == ("FINISHED", "READY")
    assert not (spool / run.key).exists()
    client = MlflowClient(there.uri)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert "mlwrap.refused" not in stored.data.tags
    assert (stored.data.params["units"], stored.data.params["text"]) == ("64", "grüße 😀")
    assert stored.data.tags["team"] == "ü"
    points = client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, 1 / (step + 1)) for step in range(20)]
    assert math.isnan(client.get_metric_history(run.run_id, "odd")[3].value)
    got = Path(mlflow.artifacts.download_artifacts(run_id=run.run_id, dst_path=str(tmp_path / "got")))
    for path in (path for path in sent.rglob("*") if path.is_file()):
        name = "/".join(map(storable_name, path.relative_to(sent).parts))
        assert digest(got / "a folder" / "sent" / name) == digest(path), name
    assert (got / "notes" / "ü.txt").read_text() == "hello"
    for uri in (model.uri, f"runs:/{run.run_id}/{model.name}", model.registered):
        np.testing.assert_array_equal(mlwrap.load_model(uri).predict(X), trained.predict(X))
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(model.uri).predict(X), trained.predict(X))


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
