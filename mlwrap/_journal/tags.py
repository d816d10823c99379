"""The names of the tags that mlwrap sets in MLflow."""

from __future__ import annotations


class TagName:
    """Names of the tags of runs and models.

    Delivery finds a run or a model again by its ``KEY``: MLflow has at most one with each key.
    """

    KEY = "mlwrap.key"

    # of runs: their origin
    FUNCTION = "mlwrap.function"
    VERSION = "mlwrap.version"
    VERSIONS = "mlwrap.versions"
    PYTHON = "mlwrap.python"
    HOST = "mlwrap.host"
    ARGV = "mlwrap.argv"
    GIT_DIRTY = "mlwrap.git.dirty"

    # of runs: their outcome
    SIGNAL = "mlwrap.signal"
    PREEMPTED = "mlwrap.preempted"
    PRUNED = "mlwrap.pruned"
    ERROR_TYPE = "mlwrap.error.type"
    ERROR_MESSAGE = "mlwrap.error.message"
    DIVERGED = "mlwrap.diverged"
    FIRST_NONFINITE_STEP = "mlwrap.first_nonfinite_step"
    FIRST_NONFINITE_METRIC = "mlwrap.first_nonfinite_metric"

    # of runs: what is missing in MLflow
    REFUSED = "mlwrap.refused"
    THINNED = "mlwrap.thinned"
    LOST_RECORDS = "mlwrap.lost_records"
    DAMAGED_RECORDS = "mlwrap.damaged_records"

    # of sweeps and their trials
    SWEEP = "mlwrap.sweep"
    TRIAL = "mlwrap.sweep.point"
    TRIAL_COUNT = "mlwrap.sweep.points"

    # of models
    SAVER = "mlwrap.saver"
    CALL = "mlwrap.call"
    STEP = "mlwrap.step"
    CHECKPOINT = "mlwrap.checkpoint"
    FORMS = "mlwrap.forms"
    VERIFIED = "mlwrap.verified"
    ERROR = "mlwrap.error"
    TROUBLE = "mlwrap.trouble"
