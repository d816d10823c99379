"""Which worker is this? As TensorFlow, Slurm, MPI and torchrun tell their processes."""

from __future__ import annotations

import json

import pytest

from mlwrap._process.workers import role
from mlwrap.errors import OptionError

TWO = {"worker": ["a:1", "b:1"]}
LED = {"chief": ["c:1"], "worker": ["a:1"], "ps": ["p:1"], "evaluator": ["e:1"]}


def tf_config(cluster: dict, kind: str | None, index: int | None = None) -> str:
    """The variable as a launcher sets it."""
    task = {"type": kind, "index": index or 0} if kind else {}
    return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.parametrize(
    ("environment", "chief", "saves"),
    [
        ({}, True, False),
        ({"TF_CONFIG": ""}, True, False),
        ({"TF_CONFIG": "{}"}, True, False),
        ({"TF_CONFIG": tf_config({"worker": ["a:1"]}, "worker", 0)}, True, False),
        ({"TF_CONFIG": tf_config(TWO, "worker", 0)}, True, False),
        ({"TF_CONFIG": tf_config(TWO, "worker", 1)}, False, True),
        ({"TF_CONFIG": tf_config(LED, "chief")}, True, False),
        ({"TF_CONFIG": tf_config(LED, "worker")}, False, True),
        ({"TF_CONFIG": tf_config(LED, "ps")}, False, False),
        ({"TF_CONFIG": tf_config(LED, "evaluator")}, False, False),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True, False),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, False, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True, False),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, True, False),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, False, False),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, True, False),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True, False),
        ({"RANK": "1"}, True, False),
    ],
)
def test_what_the_environment_says(
    environment: dict, chief: bool, saves: bool, monkeypatch: pytest.MonkeyPatch
):
    """One process of several is the chief; the others save where a strategy of TensorFlow's needs them to."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = role()
    assert (found.chief, found.saves) == (chief, saves)


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "[1]",
        json.dumps({"cluster": TWO}),
        tf_config(TWO, None),
        tf_config(TWO, "worker", 2),
        tf_config(TWO, "chief"),
        json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "1"}}),
    ],
)
def test_a_tf_config_that_does_not_say_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch):
    """Two workers that both take themselves for the chief would make two runs."""
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(OptionError, match=r"TF_CONFIG.*Expected as"):
        role()
