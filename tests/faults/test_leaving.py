"""A process that leaves while runs that it did not wait for are being delivered (``wait=False``)."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import runs, senders, until

AWAY = "http://127.0.0.1:9"
BODY = """
for number in range({runs}):
    with mlwrap.model_run(f"r{{number}}", params={{"number": number}}, wait=False) as run:
        run.log_metric("loss", 1.0)
{end}
"""
# Said when the end of the process begins to wait.
LEAVING = """
import mlwrap._run.flush, mlwrap._process.shutdown
mlwrap._process.shutdown._exit_work.insert(0, lambda: print("ready", flush=True))
"""


def ended(process: subprocess.Popen[str]) -> str:
    """What it said on standard error until it ended."""
    return process.communicate(timeout=120)[1]


def folders(spool: Path) -> list[Path]:
    """The run folders."""
    return [path for path in spool.iterdir() if path.is_dir()]


def test_leaving_waits_for_all_of_them(script, store: str, spool: Path):
    """All are delivered when the process is gone, and nothing is said."""
    process = script(BODY.format(runs=10, end=""))
    assert ended(process) == ""
    assert process.returncode == 0
    assert folders(spool) == []
    found = runs()
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [found[f"r{n}"].data.params for n in range(10)] == [{"number": str(n)} for n in range(10)]


def test_leaving_while_the_server_is_away(script, spool: Path):
    """One deadline for all, one warning for all; sync would deliver them."""
    process = script(BODY.format(runs=20, end=""), MLFLOW_TRACKING_URI=AWAY, MLWRAP_DEADLINE="1")
    err = ended(process)
    assert process.returncode == 0
    assert err.count("MlwrapWarning") == 1
    assert "MLflow does not have all of 20 runs yet: no server listens at 127.0.0.1:9" in err
    assert f"They wait in {spool}; 'mlwrap sync' delivers them." in err
    assert len(folders(spool)) == 20
    until(lambda: not senders(spool))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_leaving(script, store: str, spool: Path, number: int):
    """The waiting ends at once, the spool is kept, and the run's status is what its body said."""
    process = script(LEAVING + BODY.format(runs=1, end=""), MLFLOW_TRACKING_URI=AWAY, MLWRAP_DEADLINE="600")
    assert process.stdout.readline() == "ready\n"
    (sender,) = senders(spool)
    process.send_signal(number)
    err = ended(process)
    if number == signal.SIGTERM:
        assert process.returncode == -number
    else:
        assert "the waiting was interrupted. It waits in" in err
    sender.wait(60)
    (folder,) = folders(spool)
    assert '"status":"FINISHED"' in (folder / "journal.jsonl").read_text()


def test_a_kill_after_a_call_has_returned(script, store: str, spool: Path):
    """The sender delivers all of them; they FINISHED."""
    process = script(BODY.format(runs=10, end="os.kill(os.getpid(), signal.SIGKILL)"))
    ended(process)
    assert process.returncode == -signal.SIGKILL
    until(lambda: not senders(spool))
    assert folders(spool) == []
    assert [run.info.status for run in runs().values()] == ["FINISHED"] * 10


def test_a_sender_that_is_killed_while_runs_wait(script, store: str, spool: Path):
    """Waiting starts another one, which delivers what the first did not."""
    process = script(
        BODY.format(runs=10, end="print('ready', flush=True); sys.stdin.readline(); print(run.wait())")
    )
    assert process.stdout.readline() == "ready\n"
    (first,) = senders(spool)
    first.kill()
    out, err = process.communicate("\n", timeout=120)
    assert (out, err, process.returncode) == ("True\n", "", 0)
    assert folders(spool) == []
    assert [run.info.status for run in runs().values()] == ["FINISHED"] * 10
