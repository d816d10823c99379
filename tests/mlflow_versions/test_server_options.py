"""Servers that are set up in other ways: presigned URLs, multipart uploads, HTTPS, workspaces."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import mlflow
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient

import mlwrap
from mlwrap.errors import LoadError, MlwrapWarning
from tests.faults import proxy as how
from tests.faults.conftest import until
from tests.faults.proxy import Proxy
from tests.faults.servers import Server, free_port, mlflow_server
from tests.faults.weights import Weights
from tests.mlflow_versions.conftest import NEWEST, PYTHON_BY_VERSION, version_key

CLIENT = version_key(mlflow.__version__)
PRESIGNED_ONLY = (3, 18)
REGION = "us-east-1"
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "user",
    "AWS_SECRET_ACCESS_KEY": "password",
    "AWS_DEFAULT_REGION": REGION,
}
MEGABYTE = 1 << 20


def store_in(folder: Path) -> str:
    """URI of a new sqlite store."""
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 store, which is moto's, with an empty bucket."""
    port = free_port()
    log = (tmp_path_factory.mktemp("s3") / "s3.log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b"
    )

    def is_made() -> bool:
        try:
            client.create_bucket(Bucket="bucket")
        except client.exceptions.ClientError:
            raise
        except Exception:  # noqa: BLE001 - it does not listen yet
            return False
        return True

    until(is_made)
    yield url
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.close()


@pytest.fixture(scope="module")
def newest_server(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The newest server, which takes and gives files by presigned URLs alone."""
    folder = tmp_path_factory.mktemp("presigned")
    with mlflow_server(
        store_in(folder), folder, "--artifacts-presigned-only",
        python=PYTHON_BY_VERSION[NEWEST], artifacts="s3://bucket/presigned",
        MLFLOW_S3_ENDPOINT_URL=s3, **S3_KEYS,
    ) as server:  # fmt: skip
        yield server


@pytest.mark.skipif(version_key(NEWEST) < PRESIGNED_ONLY, reason="no server has presigned URLs alone")
def test_presigned_urls_alone(newest_server: Server, tmp_path: Path):
    """The client of that version has them; an older one is told what to install."""
    proxy = Proxy(newest_server.port)
    context = mlwrap.model_run("r", tracking_uri=proxy.uri, experiment=uuid.uuid4().hex, delivery="inline")
    if CLIENT < PRESIGNED_ONLY:
        with (
            pytest.warns(MlwrapWarning, match="takes files by presigned URLs alone, and the client here"),
            context as run,
        ):
            run.log_text("a", "notes/a.txt")
        return
    proxy.rule(how.reply(503), "server-info", times=1)  # what the server takes is asked again
    with context as run:
        run.log_text("a", "notes/a.txt")
        run.log_text("", "empty.txt")
        run.log_model(Weights(1000), register_as="presigned@best")
    assert [model.status for model in run.models] == ["READY"]
    first_upload = proxy.lines("PUT |mpu/create").index(proxy.lines("mpu/create")[0])
    assert proxy.lines("PUT |mpu/create")[first_upload:] == proxy.lines("mpu/create")  # the rest goes to S3
    for uri in (run.model_uri, "models:/presigned@best"):
        assert mlwrap.load_model(uri, tracking_uri=proxy.uri).size == 1000
    folder = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, dst_path=str(tmp_path), tracking_uri=proxy.uri
    )
    assert (Path(folder) / "notes" / "a.txt").read_text() == "a"
    assert (Path(folder) / "empty.txt").read_text() == ""
    proxy.refuse()


def test_proxied_multipart_upload(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server signs the parts, and the client sends them to the store."""
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(MEGABYTE))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MEGABYTE))
    with mlflow_server(
        store_in(tmp_path), tmp_path / "server", artifacts="s3://bucket/parts",
        MLFLOW_S3_ENDPOINT_URL=s3,
    ) as server:  # fmt: skip
        proxy = Proxy(server.port)
        with mlwrap.model_run("r", tracking_uri=proxy.uri, experiment="parts") as run:
            run.log_text("a", "notes/a.txt")
            run.log_model(Weights(12 * MEGABYTE))
        assert [model.status for model in run.models] == ["READY"]
        (created,) = proxy.lines("mpu/create")
        assert created.rpartition("/")[2] == "data"
        assert len(proxy.lines("mpu/complete")) == 1
        assert proxy.lines("PUT .*data/weights") == []
        assert mlwrap.load_model(run, tracking_uri=proxy.uri).size == 12 * MEGABYTE
        proxy.refuse()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody has signed but its own key; and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = serialization.Encoding.PEM
    paths = tmp_path / "server.pem", tmp_path / "server.key"
    paths[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    paths[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_https_with_a_certificate_of_ones_own(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Either variable names it, also to the sender; without one the message says what is wrong."""
    cert, key = certificate
    options = f"--uvicorn-opts '--ssl-certfile {cert} --ssl-keyfile {key}'"
    with mlflow_server(store_in(tmp_path), tmp_path / "server", options, scheme="https") as server:
        for variable in ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"):
            for delivery in ("inline", "sender"):
                with monkeypatch.context() as patch:
                    patch.setenv(variable, str(cert))
                    with mlwrap.model_run(
                        "r", tracking_uri=server.uri, experiment="tls", delivery=delivery, deadline=120
                    ) as run:
                        run.log_text("a", "notes/a.txt")
                        run.log_model(Weights(1000))
                    assert [model.status for model in run.models] == ["READY"], (variable, delivery)
                    assert mlwrap.load_model(run, tracking_uri=server.uri).size == 1000
        with (
            pytest.warns(MlwrapWarning, match="certificate verify failed"),
            mlwrap.model_run("r", tracking_uri=server.uri, experiment="tls", delivery="inline"),
        ):
            pass


@pytest.mark.skipif(not hasattr(mlflow, "create_workspace"), reason="this MLflow has no workspaces")
def test_a_run_in_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MLFLOW_WORKSPACE chooses it, also for the sender, and for the model registry."""
    with mlflow_server(store_in(tmp_path), tmp_path / "server", "--enable-workspaces") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        mlflow.create_workspace("vision")
        monkeypatch.setenv("MLFLOW_WORKSPACE", "vision")
        runs = []
        for delivery in ("inline", "sender"):
            with mlwrap.model_run("r", experiment="work", delivery=delivery, deadline=120) as run:
                run.log_text("a", "notes/a.txt")
                run.log_model(Weights(1000), register_as="works@best")
            runs.append(run)
        client = MlflowClient()
        (experiment,) = (e for e in client.search_experiments() if e.name == "work")
        assert {r.info.run_id for r in client.search_runs([experiment.experiment_id])} == {
            r.run_id for r in runs
        }
        assert mlwrap.load_model("models:/works@best").size == 1000
        monkeypatch.setenv("MLFLOW_WORKSPACE", "default")
        assert MlflowClient().get_experiment_by_name("work") is None
        with pytest.raises(LoadError, match="works"):
            mlwrap.load_model("models:/works@best")
        with mlwrap.model_run("r", experiment="work", delivery="inline") as run:
            pass
        experiment = MlflowClient().get_experiment_by_name("work")
        assert [r.info.run_id for r in MlflowClient().search_runs([experiment.experiment_id])] == [run.run_id]
