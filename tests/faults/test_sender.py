"""The sender: it delivers while training goes on, outlives its writer, and is replaced if it dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import mlflow
import pytest

import mlwrap
from mlwrap.errors import MlwrapWarning
from tests.faults.conftest import runs, senders, until
from tests.spools import waiting_in


def status(name: str = "r") -> str | None:
    """The status of a run, if it is there."""
    run = runs().get(name)
    return run.info.status if run else None


def steps(name: str = "r", metric: str = "loss") -> list[int]:
    """The steps of a metric's points, in their order."""
    return [p.step for p in mlflow.MlflowClient().get_metric_history(runs()[name].info.run_id, metric)]


READY = "print('ready', flush=True); time.sleep(120)\n"
TRAINING = f"""
with mlwrap.model_run("r", params={{"a": 1}}) as run:
    for step in range(500):
        run.log_metric("loss", step / 7, step=step)
    {READY}
"""


def test_a_run_is_delivered_by_another_process(script, store: str, spool: Path):
    """All of it, and the training process has not imported MLflow; nothing is left."""
    process = script("with mlwrap.model_run('r') as run:\n    run.log_metric('loss', 1.0)\n"
                     "print(run.run_id, 'mlflow' in sys.modules)\n")  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.split() == [runs()["r"].info.run_id, "False"]
    assert status() == "FINISHED"
    until(lambda: not senders(spool))
    assert waiting_in(spool) == []


def test_a_run_is_seen_while_it_is_open(script, store: str, spool: Path):
    """RUNNING, with the points so far; and no thread of the sender's puts itself in a training's place."""
    process = script(TRAINING)
    assert process.stdout.readline() == "ready\n"
    until(lambda: status() == "RUNNING" and len(steps()) == 500)
    assert runs()["r"].data.params == {"a": "1"}
    (sender,) = senders(spool)
    if hasattr(os, "SCHED_BATCH"):
        assert {os.sched_getscheduler(thread.id) for thread in sender.threads()} == {os.SCHED_BATCH}


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "import ctypes; ctypes.string_at(0)"]
)
def test_a_process_that_dies_without_a_word(script, store: str, spool: Path, end: str):
    """Kill -9, os._exit and a crash: every point, once, and the run KILLED, with nobody doing anything."""
    process = script(
        "run = mlwrap.model_run('r').__enter__()\n"
        "for step in range(500):\n    run.log_metric('loss', 1.0, step=step)\n" + end + "\n"
    )
    process.communicate(timeout=120)
    until(lambda: status() == "KILLED")
    assert steps() == list(range(500))
    assert "died without a word" in runs()["r"].data.tags["mlwrap.error.message"]
    until(lambda: waiting_in(spool) == [])


def test_a_run_that_nobody_closed(script, store: str):
    """The interpreter exits with an open run: the body did not finish."""
    process = script("run = mlwrap.model_run('r').__enter__()\nrun.log_metric('loss', 1.0)\n")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    until(lambda: status() == "KILLED")
    assert steps() == [0]


def test_a_sender_that_is_killed_is_started_again(script, store: str, spool: Path):
    """It goes on where the first one stopped; training does not notice."""
    process = script(
        "with mlwrap.model_run('r') as run:\n"
        "    for step in range(2000):\n"
        "        run.log_metric('loss', 1.0, step=step)\n"
        "        time.sleep(0.002)\n"
        "        if step == 100: print('ready', flush=True)\n"
    )
    assert process.stdout.readline() == "ready\n"
    (first,) = senders(spool)
    first.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert status() == "FINISHED"
    assert steps() == list(range(2000))


def test_both_are_killed_and_the_next_start_finishes(script, store: str, spool: Path):
    """What nobody was left to deliver, the sender of the next training delivers."""
    process = script(TRAINING)
    assert process.stdout.readline() == "ready\n"
    for sender in senders(spool):
        sender.kill()
    process.kill()
    process.communicate()
    assert status() in {None, "RUNNING"}
    other = script("with mlwrap.model_run('next'):\n    time.sleep(20)\n")
    until(lambda: status() == "KILLED")
    assert steps() == list(range(500))
    other.kill()


def test_children_share_one_sender(script, store: str, spool: Path):
    """Processes that a training process starts: each has its own run, and all one sender."""
    process = script(
        "import multiprocessing\n"
        "def child(n):\n"
        "    with mlwrap.model_run(f'child{n}') as run:\n"
        "        run.log_metric('loss', 1.0)\n"
        "if __name__ == '__main__':\n"
        "    with mlwrap.model_run('r'):\n"
        "        for method in ('spawn', 'fork', 'forkserver'):\n"
        "            context = multiprocessing.get_context(method)\n"
        "            children = [context.Process(target=child, args=(f'{n}{method}',)) for n in range(4)]\n"
        "            [c.start() for c in children]; [c.join() for c in children]\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(1)\n"
    )
    assert process.stdout.readline() == "ready\n"
    assert len(senders(spool)) == 1
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = runs()
    assert {name: run.info.status for name, run in found.items()} == {
        "r": "FINISHED",
        **{f"child{n}{method}": "FINISHED" for n in range(4) for method in ("spawn", "fork", "forkserver")},
    }
    parents = {run.data.tags["mlflow.parentRunId"] for name, run in found.items() if name != "r"}
    assert parents == {found["r"].info.run_id}


def test_workers_that_outlive_a_run(script, store: str, spool: Path):
    """loky's: they know the run that was open when they started, for as long as it is."""
    process = script(
        "import joblib\n"
        "def child(n):\n"
        "    with mlwrap.model_run(f'child{n}', quiet=True):\n"
        "        pass\n"
        "if __name__ == '__main__':\n"
        "    for name in 'ab':\n"
        "        with mlwrap.model_run(name):\n"
        "            joblib.Parallel(2)(joblib.delayed(child)(f'{n}{name}') for n in range(2))\n"
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = runs()
    assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(
        ["a", "b", "child0a", "child1a", "child0b", "child1b"], "FINISHED"
    )
    for name, run in found.items():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (found["a"].info.run_id if name.endswith("a") and name != "a" else None)


def test_a_forked_child_does_not_hide_its_parents_death(script, store: str):
    """The child inherits every descriptor; the parent's death is noticed all the same."""
    process = script(
        "run = mlwrap.model_run('r').__enter__()\n"
        "run.log_metric('loss', 1.0)\n"
        "if os.fork() == 0:\n"
        "    run.log_metric('child', 1.0); time.sleep(60); os._exit(0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process.wait(timeout=60)
    until(lambda: status() == "KILLED", seconds=30)
    assert runs()["r"].data.metrics == {"loss": 1.0}


def test_a_stopped_process_is_not_dead(script, store: str, spool: Path):
    """SIGSTOP and, later, SIGCONT: nobody closes its run in between, not even a sync."""
    process = script(TRAINING)
    assert process.stdout.readline() == "ready\n"
    until(lambda: status() == "RUNNING" and len(steps()) == 500)
    process.send_signal(signal.SIGSTOP)
    assert mlwrap.sync() == []
    assert status() == "RUNNING"
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
    until(lambda: status() == "KILLED")


def test_where_no_process_can_be_started_delivery_is_inline(
    store: str, spool: Path, monkeypatch: pytest.MonkeyPatch
):
    """Said once; nothing else changes."""
    monkeypatch.setenv("MLWRAP_DELIVERY", "sender")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    words = "by this process: no sender could be started"
    with pytest.warns(MlwrapWarning, match=words), mlwrap.model_run("r") as run:
        run.log_metric("loss", 1.0)
    assert status() == "FINISHED"
    assert waiting_in(spool) == []


def test_a_spool_with_a_long_path(script, store: str, tmp_path: Path):
    """Longer than a socket's name may be."""
    spool = tmp_path / ("long" * 30) / ("path" * 30)
    process = script("with mlwrap.model_run('r'): pass\n", MLWRAP_SPOOL=str(spool))
    _, err = process.communicate(timeout=120)
    assert err == ""
    assert status() == "FINISHED"
    until(lambda: waiting_in(spool) == [])


def test_leaving_waits_no_longer_than_the_deadline(script, store: str, spool: Path):
    """An MLflow that is away: the body is not slowed, leaving is bounded, and sync delivers it later."""
    process = script(
        "began = time.monotonic()\n"
        "with mlwrap.model_run('r', tracking_uri='http://127.0.0.1:9') as run:\n"
        "    for step in range(100): run.log_metric('loss', 1.0, step=step)\n"
        "    body = time.monotonic() - began\n"
        "print(body, time.monotonic() - began - body)\n",
        MLWRAP_DEADLINE="1",
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "no server listens at 127.0.0.1:9" in err
    assert "'mlwrap sync' delivers it" in err
    until(lambda: not senders(spool))
    assert len(waiting_in(spool)) == 1
