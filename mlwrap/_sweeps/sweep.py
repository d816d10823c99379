"""Run many calls of one training function as trials of a sweep: a parent run, and a child run for each.

joblib may run a trial in a thread, in a process or on another machine, which may share the spool or not. So
each trial carries all that its run needs of the parent run, and only a small result comes back: the outcome,
read from the run's journal on the worker. Models stay where they were logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlwrap import config
from mlwrap._capture.arguments import Arguments
from mlwrap._capture.redact import Redactor
from mlwrap._journal.reader import header
from mlwrap._journal.tags import TagName
from mlwrap._process.mlflow_settings import destination
from mlwrap._process.pickle_probe import pickling_error
from mlwrap._process.provenance import code
from mlwrap._run import console
from mlwrap._run.context import RunContext
from mlwrap._run.parent_run import ParentRun
from mlwrap._run.run import Run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap._spool.sweep_trials import FinishedTrial, waiting_trials
from mlwrap._sweeps.grid import SweepInput, expand_grid, values_by_parameter
from mlwrap._sweeps.table import SweepTable, SweepTrial
from mlwrap._sweeps.worker import SweepWorker
from mlwrap.config import EffectiveSettings, Settings
from mlwrap.errors import DeliveryError, JournalError, OptionError, describe_error, warn


class SweepTarget(NamedTuple):
    """A decorated function, as a sweep needs it.

    Attributes:
        call: The decorated function, which can be pickled if the engine needs that.
        body: The function itself.
        instance: The object that a method is bound to.
        arguments: The function's parameters.
        name: The name of its runs.
        tags: The runs' tags.
        options: The runs' settings.
    """

    call: Callable[..., Any]
    body: Callable[..., Any]
    instance: object
    arguments: Arguments
    name: str
    tags: Mapping[str, Any]
    options: Mapping[str, Any]


def sweep(target: SweepTarget, points: SweepInput, *, n_jobs: int | None, resume: bool | str) -> SweepTable:
    """See :meth:`mlwrap._decorator.tracked_training.TrackedFunction.sweep`."""
    trials = expand_grid(points, target.call, target.name)
    chosen = config.settings(**target.options)
    parallel = _joblib_engine(n_jobs)
    _check_travels(target, trials, parallel)
    texts = [target.arguments.capture(target.instance, (), trial, Redactor()).values for trial in trials]
    digests = _digests(target, texts)
    sweep_id, finished = _finished_before(resume, chosen)
    rows: dict[int, SweepTrial] = {}
    for number, digest in enumerate(digests):
        if earlier_runs := finished.get(digest):
            key, run_id, metrics = earlier_runs.pop(0)
            rows[number] = SweepTrial(trials[number], metrics, "FINISHED", run_id, key or None, None)
    context = RunContext(
        f"{target.name} sweep",
        chosen,
        capture=lambda redactor: target.arguments.capture(
            target.instance, (), values_by_parameter(trials), redactor
        ),
        tags={**target.tags, TagName.SWEEP: sweep_id, TagName.TRIAL_COUNT: len(trials)},
        function=target.body,
        own_experiment=config.is_own_option("experiment", target.options),
    )
    with context as run:
        run.log_metrics({"points": len(trials), "points.skipped": len(rows)})
        worker = SweepWorker(target.call, *_settings_for_trials(run, chosen, target, sweep_id))
        todo = [
            (number, trials[number], digests[number]) for number in range(len(trials)) if number not in rows
        ]
        with _report_progress(chosen, run.name, len(trials)) as print_line:
            for number, row in rows.items():
                print_line(f"{_trial_line(row, texts[number])}  (in an earlier sweep)")
            try:
                for number, outcome in _outcomes(parallel, worker, todo):
                    rows[number] = SweepTrial(trials[number], *outcome)
                    print_line(_trial_line(rows[number], texts[number]))
            except BaseException:  # including Ctrl-C
                _warn_how_to_resume(run, len(rows), len(trials))
                raise
            finally:
                failed = sum(row.status != "FINISHED" for row in rows.values())
                run.log_metrics({"points.finished": len(rows) - failed, "points.failed": failed})
    table = [rows[number] for number in range(len(trials))]
    return SweepTable(table, run_id=run.run_id, key=run.key if run.recorded else None)


def _joblib_engine(n_jobs: int | None) -> Any:
    """Return joblib's ``Parallel`` for the engine that ``joblib.parallel_config`` chose."""
    import joblib  # noqa: PLC0415 - only a sweep needs it

    if n_jobs is not None:
        config.check_type("n_jobs", n_jobs, int)
        if n_jobs == 0:
            raise OptionError(
                "n_jobs=0 can't be used: expected a number of workers, or -1 for all processors."
            )
    backend, _ = joblib.parallel.get_active_backend()
    streams = getattr(backend, "supports_return_generator", False)
    try:
        return joblib.Parallel(
            n_jobs=n_jobs,
            return_as="generator_unordered" if streams or n_jobs == 1 else "list",
            batch_size=1,  # one training is long enough for a task
            max_nbytes=None,  # else large arrays arrive as read-only memory maps
        )
    except (ValueError, ImportError) as error:
        raise OptionError(f"joblib can't use the configured engine: {error}") from error


def _check_travels(target: SweepTarget, trials: Iterable[Mapping[str, Any]], parallel: Any) -> None:
    """Check before any trial runs that all values for other processes can be pickled."""
    if parallel.n_jobs == 1 or getattr(parallel._backend, "supports_sharedmem", False):  # noqa: SLF001 - no public way
        return
    parts = {f"the value of {name!r}": values for name, values in values_by_parameter(trials).items()}
    for part, value in {f"{target.name}()": target.call, **parts}.items():
        if (error := pickling_error(value)) is not None:
            raise OptionError(
                f"{part} can't travel to another process: {describe_error(error)}. Make it inside the "
                "function, or sweep in this process, with joblib.parallel_config(backend='threading')."
            ) from error


def _digests(target: SweepTarget, texts: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a digest of each trial: of the code and of the parameters, as they are logged."""
    source = code(target.body)
    return [hashlib.sha256(msgspec.json.encode([source, sorted(text.items())])).hexdigest() for text in texts]


def _finished_before(resume: bool | str, chosen: Settings) -> tuple[str, dict[str, list[FinishedTrial]]]:
    """Return the sweep's id and its finished trials: digest to runs, newest first."""
    if not isinstance(resume, bool):
        config.check_type("resume", resume, str)
        if not resume.isalnum():
            raise OptionError(
                f"resume={resume!r} can't be used: expected the id or the key of a sweep's run."
            )
    if resume is False or chosen.disabled:
        return uuid.uuid4().hex, {}
    store = destination(chosen)[:3]
    root, offline = spool_root(chosen.spool), chosen.delivery == "off"
    sweep_id = None
    if isinstance(resume, str):
        with contextlib.suppress(JournalError, OSError):
            sweep_id = header(RunFolder(root / resume).journal).tags.get(TagName.SWEEP)
        if sweep_id is None and not offline:
            from mlwrap._mlflow.queries import sweep_of  # noqa: PLC0415 - loads MLflow

            sweep_id = sweep_of(*store, resume)
        if sweep_id is None:
            raise OptionError(
                f"resume={resume!r} names no sweep that is in {store[0]} or waits in {root}: expected the id "
                "or the key of a sweep's run, which its table has as run_id and key; True looks at all."
            )
    trials = list(waiting_trials(root, sweep_id))
    waiting_keys = {trial.key for _, trial in trials}
    if not offline:
        from mlwrap._mlflow.queries import finished_trials  # noqa: PLC0415 - loads MLflow

        trials += [
            (digest, trial)
            for digest, trial in finished_trials(*store, sweep_id)
            if trial.key not in waiting_keys
        ]
    by_digest: dict[str, list[FinishedTrial]] = {}
    for digest, trial in trials:
        by_digest.setdefault(digest, []).append(trial)
    return sweep_id or uuid.uuid4().hex, by_digest


def _settings_for_trials(
    run: Run, chosen: Settings, target: SweepTarget, sweep_id: str
) -> tuple[EffectiveSettings, ParentRun | None]:
    """Return the settings of this process and the parent run, for the trials' runs."""
    defaults, overrides = config.effective_settings()
    defaults, overrides = dict(defaults), {**overrides, "quiet": True}  # the sweep itself prints the progress
    if chosen.spool is not None:
        defaults["spool"] = str(Path(chosen.spool).expanduser().absolute())
    folder = RunFolder(spool_root(chosen.spool) / run.key) if run.recorded else None
    if folder is None or not folder.journal.exists():  # disabled, or not the chief
        return EffectiveSettings(defaults, overrides), None
    parent, run_id = header(folder.journal), run.run_id
    defaults.setdefault("chief", True)  # each worker runs a whole trial, whatever its rank
    if parent.experiment_id is not None:
        defaults.pop("experiment", None)
    elif target.options.get("experiment") is None:
        defaults["experiment"] = parent.experiment or "Default"
    if run_id is None and not run.offline:
        # Create the parent run first, so that its children find it in MLflow from any machine. If MLflow does
        # not answer now, they find it later by its key.
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

            run_id = deliver(folder).run_id
    tags = {TagName.SWEEP: sweep_id}
    experiment = parent.experiment, parent.experiment_id
    parent_run = ParentRun(run.key, run.tracking_uri, run.offline, run_id, *experiment, tags)
    return EffectiveSettings(defaults, overrides), parent_run


def _outcomes(
    parallel: Any, worker: SweepWorker, todo: list[tuple[int, dict[str, Any], str]]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    import joblib  # noqa: PLC0415 - see above

    yield from parallel(joblib.delayed(worker)(*trial) for trial in todo)


@contextlib.contextmanager
def _report_progress(chosen: Settings, name: str, total: int) -> Iterator[Callable[[str], object]]:
    """Yield a function that prints a line of progress; it prints nothing if the user set ``quiet``."""
    if chosen.quiet:
        yield str  # a function that ignores the line
    else:
        with console.counting(name, total) as print_line:
            yield print_line


def _trial_line(row: SweepTrial, texts: Mapping[str, str]) -> str:
    """Format a finished trial; its arguments are shown as logged, so without secrets."""
    params = ", ".join(f"{name}={texts[name][:20]}" for name in row.params if name in texts)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items())
    return "  ".join(part for part in (row.status, params, metrics, row.error) if part)


def _warn_how_to_resume(run: Run, done: int, total: int) -> None:
    if run.recorded:
        warn(
            f"the sweep {run.name!r} ends with {done} of {total} trials done. To run the others, sweep again "
            f"with resume={run.key!r}."
        )
