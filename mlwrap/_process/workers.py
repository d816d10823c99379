"""Find the role of this process among several that train one model together.

The chief records. The environment, as the launcher of the processes set it, says which process is the chief:

* ``TF_CONFIG``, of TensorFlow's strategies and Estimators: the task ``chief`` or ``master``, else worker 0
  (https://www.tensorflow.org/guide/distributed_training#TF_CONFIG);
* Slurm's ``srun``: ``SLURM_PROCID`` 0 of several ``SLURM_NTASKS`` of a step;
* MPI: ``OMPI_COMM_WORLD_RANK`` or ``PMI_RANK`` 0; ``torchrun`` and its like: ``RANK`` 0 of ``WORLD_SIZE``;
* JAX, once ``jax.distributed`` is initialised: process index 0.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

from mlwrap.errors import OptionError

_RANKS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("RANK", "WORLD_SIZE"),
)
_CHIEFS = ("chief", "master")
_SAVING = (*_CHIEFS, "worker")
_HINT = 'Expected as {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}.'


class Role(NamedTuple):
    """The role of this process.

    Attributes:
        chief: Whether this process is the one that records.
        saves: Whether it takes part in saving without being the chief, as multi-worker strategies require.
        source: The variable or the library that defines the role; ``None`` if there is only one process.
    """

    chief: bool = True
    saves: bool = False
    source: str | None = None


def role() -> Role:
    """Return the role of this process.

    Raises:
        OptionError: ``TF_CONFIG`` is set, and can't be read or does not say which task this process is.
    """
    return _of_tf_config() or _of_slurm() or _of_ranks() or _of_jax() or Role()


def _of_tf_config() -> Role | None:
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config: dict[str, Any] = json.loads(text)
        cluster = {kind: len(tasks) for kind, tasks in (config.get("cluster") or {}).items()}
        task = config.get("task") or {}
        kind, index = task.get("type"), task.get("index", 0)
    except (ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"TF_CONFIG={text!r} can't be read: {error}. {_HINT}") from None
    if sum(cluster.values()) <= 1:
        return None  # a single process, whatever its task's type
    if kind not in cluster or not isinstance(index, int) or not 0 <= index < cluster[kind]:
        raise OptionError(
            f"TF_CONFIG names {sum(cluster.values())} tasks and does not say which of them this process is: "
            f"its task is {task!r}. {_HINT}"
        )
    has_chief = any(cluster.get(chief) for chief in _CHIEFS)
    chief = kind in _CHIEFS if has_chief else kind == "worker" and index == 0
    return Role(chief, not chief and kind in _SAVING, "TF_CONFIG")


def _of_slurm() -> Role | None:
    # srun starts a step. The batch script itself has the same variables, but is a single process.
    if "SLURM_STEP_ID" not in os.environ or _environment_number("SLURM_NTASKS") <= 1:
        return None
    return Role(_environment_number("SLURM_PROCID") == 0, source="SLURM_PROCID")


def _of_ranks() -> Role | None:
    for rank, size in _RANKS:
        if rank in os.environ and _environment_number(size) > 1:
            return Role(_environment_number(rank) == 0, source=rank)
    return None


def _of_jax() -> Role | None:
    jax: Any = sys.modules.get("jax")
    initialised = getattr(getattr(jax, "distributed", None), "is_initialized", None)
    if initialised is None or not initialised() or jax.process_count() <= 1:
        return None
    return Role(jax.process_index() == 0, source="jax.distributed")


def _environment_number(variable: str) -> int:
    text = os.environ.get(variable, "0")
    return int(text) if text.isdecimal() else 0
