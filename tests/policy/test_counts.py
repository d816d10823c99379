"""What makes it fast, held by counts: a clock would tell more of the machine than of the code."""

from __future__ import annotations

import json

# A process counts what it opens, starts and writes; in a child, for a hook of this kind can't be taken out.
COUNTING = """
import json, os, sys
from collections import Counter
counts, started = Counter(), []
def hook(event, arguments):
    counts[event] += 1
    if event == "subprocess.Popen":
        started.append(arguments[1])
sys.addaudithook(hook)
real = os.write
def write(descriptor, data):
    counts["written"] += 1
    counts["bytes"] += len(data)
    return real(descriptor, data)
os.write = write
import mlwrap
"""
CALLS = 1000


def told(done):
    """What a script printed last."""
    return json.loads(done.stdout.splitlines()[-1])


def logged(python, values: str, delivery: str = "off") -> dict[str, int]:
    """What so many calls of ``log_metrics`` did, after some that made what is made once."""
    return told(
        python(
            COUNTING + "from mlwrap._recording import sender_link\n"
            "with mlwrap.model_run('r') as run:\n"
            "    for step in range(10):\n"
            f"        run.log_metrics({values}, step=step)\n"
            "    counts.clear()\n"
            f"    for step in range(10, 10 + {CALLS}):\n"
            f"        run.log_metrics({values}, step=step)\n"
            "    print(json.dumps(counts), flush=True)\n"
            "    for sender in sender_link._started:\n"
            "        sender.kill()\n"  # it need not deliver them
            "    os._exit(0)\n",
            MLWRAP_DELIVERY=delivery,
        )
    )


def test_a_call_to_log_metrics_is_one_write_and_nothing_else(python):
    """No file is opened, no process started, no socket made."""
    counts = logged(python, "{f'm{i}': (step + i) / 7 for i in range(5)}")
    assert counts.pop("written") == CALLS
    counts.pop("bytes")
    assert not {event for event in counts if event.startswith(("open", "os.", "socket.", "subprocess."))}


def test_a_sender_that_listens_costs_a_call_no_file_and_no_process(python):
    """Nor a write: what wakes it is a byte on a socket that is there, at most one every half second."""
    counts = logged(python, "{'loss': step / 7}", delivery="sender")
    assert counts.pop("written") == CALLS
    counts.pop("bytes")
    assert not {event for event in counts if event.startswith(("open", "os.", "socket.", "subprocess."))}


def test_a_point_takes_few_bytes(python):
    """Five a call with sixteen digits each; they share the record's frame, its number and its checksum."""
    counts = logged(python, "{f'm{i}': (step + i) / 7 for i in range(5)}")
    assert counts["bytes"] <= 42 * 5 * CALLS
    assert logged(python, "{'loss': step / 7}")["bytes"] <= 125 * CALLS


def test_three_runs_start_one_sender_and_ask_git_once(python, store):
    """And nothing else."""
    started = told(
        python(
            COUNTING + "for number in range(3):\n"
            "    with mlwrap.model_run(f'run {number}', params={'a': 1}) as run:\n"
            "        run.log_metric('loss', 0.5)\n"
            "print(json.dumps(started))\n",
            MLWRAP_DELIVERY="sender",
            MLWRAP_DEADLINE="60",
            MLWRAP_LINGER="10",
        )
    )
    assert [line[0] for line in started if "mlwrap._sender.server" not in " ".join(line)] == ["git"]
    assert len(started) == 2


def test_importing_mlwrap_loads_one_module_of_its_own(python):
    """The street; each room is opened when somebody goes in."""
    ours = told(
        python("import sys, json, mlwrap\nprint(json.dumps([m for m in sys.modules if 'mlwrap' in m]))\n")
    )
    assert ours == ["mlwrap"]


def test_a_first_tracked_call_loads_nothing_heavy(python):
    """Numbers in, numbers out: no framework, no MLflow, and nothing that these bring."""
    loaded = told(
        python(
            "import json, sys, mlwrap\n"
            "@mlwrap.tracked_training\n"
            "def train(*, units=1):\n"
            "    return {'loss': 0.5}\n"
            "train(units=2)\n"
            "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n",
            MLWRAP_DELIVERY="off",
        )
    )
    heavy = {
        "tensorflow",
        "keras",
        "tf_keras",
        "jax",
        "torch",
        "mlflow",
        "mlflow_skinny",
        "sqlalchemy",
        "requests",
    }
    heavy |= {
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "matplotlib",
        "rich",
        "click",
        "tyro",
        "joblib",
        "cloudpickle",
        "psutil",
    }
    assert not heavy & set(loaded)


def test_a_delivery_inline_changes_nothing_of_its_process(python, store):
    """Other threads see the same working folder and the same environment, at every moment."""
    done = python(
        "import json, mlwrap, mlflow.tracking, sys\n"
        "changed = []\n"
        "def hook(event, arguments):\n"
        "    if event in {'os.chdir', 'os.putenv', 'os.unsetenv'}:\n"
        "        changed.append(f'{event} {arguments[0]}')\n"
        "def train():\n"
        "    with mlwrap.model_run('r', delivery='inline') as run:\n"
        "        run.log_text('x', 'a.txt')\n"
        "    assert run.run_id is not None\n"
        "train()\n"  # what is imported for it may set what it likes
        "sys.addaudithook(hook)\n"
        "mlwrap.configure(experiment='another')\n"
        "train()\n"
        "print(json.dumps(changed))"
    )
    # A run tells processes that are started in it which run they belong to.
    assert [change for change in told(done) if "MLWRAP_" not in change] == []
