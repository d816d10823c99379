"""One sender for all processes of a spool, but none for another's credentials."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.server import get_app_client

from mlwrap._spool.sender_sockets import SenderAddress, locked
from tests.faults.conftest import runs, senders, until
from tests.faults.servers import Server, mlflow_server
from tests.spools import waiting_in

ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "of the admin 1"}
ANA = {"MLFLOW_TRACKING_USERNAME": "ana", "MLFLOW_TRACKING_PASSWORD": "correct horse 1"}
WRONG = {**ANA, "MLFLOW_TRACKING_PASSWORD": "wrong horse 1"}
LINGER = {"MLWRAP_LINGER": "60"}
ONE_RUN = "with mlwrap.model_run('r') as run: run.log_metric('loss', 1.0)\n"


def sender_command(action: str) -> subprocess.CompletedProcess[str]:
    """``mlwrap sender``."""
    return subprocess.run(
        [sys.executable, "-m", "mlwrap", "sender", action],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_threads_of_processes_that_begin_at_once_start_one_sender(script, store: str, spool: Path):
    """Scripts in folders of their own, each with runs in several threads."""
    source = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "sys.stdin.readline()\n"
        "def train(number):\n"
        "    with mlwrap.model_run(f'{sys.argv[0]} {number}') as run: run.log_metric('loss', 1.0)\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(train, range(8)))\n"
    )
    processes = [script(source, **LINGER) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=280)[1] == ""
    assert len(senders(spool)) == 1  # any other would still linger
    assert len(runs()) == 24
    assert {run.info.status for run in runs().values()} == {"FINISHED"}


def test_the_next_script_finds_the_sender_of_the_last(script, store: str, spool: Path, tmp_path: Path):
    """Wherever it lies; and the command tells of it, and stops it."""
    assert sender_command("status").stdout == "no sender runs\n"
    pids = set()
    for _ in range(2):
        assert script(ONE_RUN, **LINGER).communicate(timeout=280)[1] == ""
        pids |= {sender.pid for sender in senders(spool)}
    (pid,) = pids
    told = sender_command("status")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"process {pid}, 0:0")
    assert told.stdout.endswith(" old, 0 runs\n")
    assert sender_command("stop").stdout.endswith("; it stops\n")
    until(lambda: not senders(spool))
    assert waiting_in(spool) == []


def test_a_run_goes_on_with_another_sender_when_its_own_is_stopped(script, store: str, spool: Path):
    """Nothing is lost, and nothing is sent twice."""
    process = script(
        "with mlwrap.model_run('r') as run:\n"
        "    for step in range(300):\n"
        "        run.log_metric('loss', 1.0, step=step)\n"
        "        if step % 100 == 50: print('ready', flush=True); sys.stdin.readline()\n",
        **LINGER,
    )
    pids = set()
    for _ in range(3):
        assert process.stdout.readline() == "ready\n"
        pids |= {sender.pid for sender in senders(spool)}
        assert sender_command("stop").returncode == 0
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.communicate(timeout=280)[1] == ""
    assert len(pids) >= 1
    assert runs()["r"].info.status == "FINISHED"
    points = MlflowClient().get_metric_history(runs()["r"].info.run_id, "loss")
    assert [point.step for point in points] == list(range(300))


def test_a_sender_that_hangs_costs_the_next_run_its_deadline(script, store: str, spool: Path):
    """It has spoken before, so nobody waits for it to start."""
    process = script(
        ONE_RUN + "print('ready', flush=True); sys.stdin.readline()\n"
        "mlwrap.configure(deadline=2.0)\n"
        "began = time.monotonic()\n"
        "with mlwrap.model_run('next') as run: pass\n"
        "print(time.monotonic() - began, flush=True); sys.stdin.readline()\n"
        "print(run.wait(), flush=True)\n",
        **LINGER,
    )
    assert process.stdout.readline() == "ready\n"
    (sender,) = senders(spool)
    sender.send_signal(signal.SIGSTOP)
    process.stdin.write("\n")
    process.stdin.flush()
    assert 2.0 <= float(process.stdout.readline()) < 30.0  # a sender that starts may take a minute
    sender.send_signal(signal.SIGCONT)
    assert process.communicate("\n", timeout=280)[0] == "True\n"
    assert runs()["next"].info.status == "FINISHED"


def test_a_sender_that_ends_while_another_starts_removes_its_own_socket_only(tmp_path: Path):
    """Who comes between the end of one and the start of the next finds either."""
    address = SenderAddress(tmp_path, "digest")
    with locked(tmp_path):
        first = address.listen(1)
    assert not address.is_ready
    address.mark_ready()
    assert address.is_ready
    address.connect().close()
    address.unlist()
    assert address.connect() is None
    with locked(tmp_path):
        second = address.listen(1)
    address.connect().close()
    second.close()
    first.close()
    assert address.connect() is None


@pytest.fixture(scope="module")
def with_users(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with users and passwords: ana, who may read what others have, and an administrator."""
    pytest.importorskip("flask_wtf", reason="MLflow's users need Flask-WTF")
    folder = tmp_path_factory.mktemp("users")
    backend = f"sqlite:///{folder / 'mlflow.db'}"
    secrets = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this server",
    }
    with mlflow_server(backend, folder, "--app-name basic-auth", **secrets) as server:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ADMIN.items():
                patch.setenv(name, value)
            users = get_app_client("basic-auth", tracking_uri=server.uri)
            users.create_user(ANA["MLFLOW_TRACKING_USERNAME"], ANA["MLFLOW_TRACKING_PASSWORD"])
        yield server


@pytest.fixture
def admin(with_users: Server, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the server with users, as its administrator."""
    for name, value in ADMIN.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(with_users.uri)
    return MlflowClient(with_users.uri)


def test_a_corrected_password_is_used_by_the_next_run_and_by_those_that_wait(script, admin: MlflowClient):
    """And by one that is open."""
    process = script(
        "mlwrap.configure(deadline=20, experiment='of ana')\n"
        "with mlwrap.model_run('first') as first: pass\n"
        "with mlwrap.model_run('open') as run:\n"
        "    run.log_metric('loss', 1.0)\n"
        f"    os.environ['MLFLOW_TRACKING_PASSWORD'] = {ANA['MLFLOW_TRACKING_PASSWORD']!r}\n"
        "with mlwrap.model_run('next') as last: pass\n"
        "print(run.wait(), last.wait(), first.wait())\n",
        MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(),
        **WRONG,
    )
    out, err = process.communicate(timeout=280)
    assert out == "True True True\n", err
    assert err.count("MlwrapWarning") == 1
    experiment = admin.get_experiment_by_name("of ana")
    found = admin.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in found} == {"first", "open", "next"}
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_child_with_its_own_credentials_is_not_delivered_as_its_parent(script, admin: MlflowClient):
    """It may not write where its parent may, and that is said."""
    experiment = admin.create_experiment("of the administrator")
    process = script(
        "import subprocess\n"
        "mlwrap.configure(experiment='of the administrator')\n"
        "child = '''\n"
        "import mlwrap\n"
        "with mlwrap.model_run('child', deadline=20) as run: run.log_metric('loss', 1.0)\n"
        "print(run.wait())\n"
        "'''\n"
        "with mlwrap.model_run('parent') as run:\n"
        "    done = subprocess.run([sys.executable, '-c', child], capture_output=True, text=True,\n"
        f"        env=os.environ | {ANA!r})\n"
        "print(run.wait(), done.stdout, done.stderr)\n",
        MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(),
        **ADMIN,
    )
    out, err = process.communicate(timeout=280)
    assert err == ""
    assert out.startswith("True False")
    assert "ermission" in out
    assert [run.info.run_name for run in admin.search_runs([experiment])] == ["parent"]


def test_what_the_environment_says_beside_credentials_starts_no_other_sender(script, store: str, spool: Path):
    """Names of runs and experiments, and whatever a shell has."""
    for number, environment in enumerate(({}, {"MLFLOW_EXPERIMENT_NAME": "other", "TERM": "dumb", "A": "b"})):
        process = script(ONE_RUN.replace("'r'", f"'r{number}'"), **LINGER, **environment)
        assert process.communicate(timeout=280)[1] == ""
    assert len(senders(spool)) == 1
    assert set(runs()) == {"r0", "r1"}
