"""Many calls of one training function: a run around them, and one for each, wherever joblib makes it.

A point can run in a thread, in a process or on another machine, which may share the spool or not. So all that
its run must know of the run around it is handed over with the point, and what comes back is small: the
outcome, read from the run's own journal where that is. Models stay where they were logged.
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
from mlwrap._process import console
from mlwrap._process.mlflow_settings import destination
from mlwrap._process.provenance import code
from mlwrap._run.context import RunContext
from mlwrap._run.parent_run import ParentRun
from mlwrap._run.run import Run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap._spool.sweep_trials import SWEEP, FinishedTrial, waiting_trials
from mlwrap._sweeps.grid import SweepInput, expand_grid, values_by_parameter
from mlwrap._sweeps.table import SweepPoint, SweepTable
from mlwrap._sweeps.worker import SweepWorker
from mlwrap.config import EffectiveSettings, Settings
from mlwrap.errors import DeliveryError, JournalError, OptionError, describe_error, warn


class SweepTarget(NamedTuple):
    """A decorated function, as a sweep of it needs to know it.

    Attributes:
        call: The decorated function, which can be pickled where the engine needs that.
        body: The function itself.
        instance: What it is bound to, if it is a method.
        arguments: Its parameters.
        name: The name of its runs.
        tags: Their tags.
        options: Their settings.
    """

    call: Callable[..., Any]
    body: Callable[..., Any]
    instance: object
    arguments: Arguments
    name: str
    tags: Mapping[str, Any]
    options: Mapping[str, Any]


def sweep(what: SweepTarget, points: SweepInput, *, n_jobs: int | None, resume: bool | str) -> SweepTable:
    """See :meth:`mlwrap._decorator.tracked_training.TrackedFunction.sweep`."""
    each = expand_grid(points, what.call, what.name)
    chosen = config.settings(**what.options)
    parallel = _joblib_engine(n_jobs)
    _check_travels(what, each, parallel)
    texts = [what.arguments.capture(what.instance, (), point, Redactor()).values for point in each]
    digests = _digests(what, texts)
    sweep_id, known = _finished_before(resume, chosen)
    rows: dict[int, SweepPoint] = {}
    for number, digest in enumerate(digests):
        if waiting := known.get(digest):
            key, run_id, metrics = waiting.pop(0)
            rows[number] = SweepPoint(each[number], metrics, "FINISHED", run_id, key or None, None)
    context = RunContext(
        f"{what.name} sweep",
        chosen,
        capture=lambda redactor: what.arguments.capture(
            what.instance, (), values_by_parameter(each), redactor
        ),
        tags={**what.tags, SWEEP: sweep_id, "mlwrap.sweep.points": len(each)},
        function=what.body,
        own_experiment=config.is_own_option("experiment", what.options),
    )
    with context as run:
        run.log_metrics({"points": len(each), "points.skipped": len(rows)})
        job = SweepWorker(what.call, *_settings_for_trials(run, chosen, what, sweep_id))
        todo = [(number, each[number], digests[number]) for number in range(len(each)) if number not in rows]
        with _report_progress(chosen, run.name, len(each)) as tell:
            for number, row in rows.items():
                tell(f"{_trial_line(row, texts[number])}  (in an earlier sweep)")
            try:
                for number, outcome in _outcomes(parallel, job, todo):
                    rows[number] = SweepPoint(each[number], *outcome)
                    tell(_trial_line(rows[number], texts[number]))
            except BaseException:  # Ctrl-C among them
                _warn_how_to_resume(run, len(rows), len(each))
                raise
            finally:
                failed = sum(row.status != "FINISHED" for row in rows.values())
                run.log_metrics({"points.finished": len(rows) - failed, "points.failed": failed})
    table = [rows[number] for number in range(len(each))]
    return SweepTable(table, run_id=run.run_id, key=run.key if run.recorded else None)


def _joblib_engine(n_jobs: int | None) -> Any:
    """The ``Parallel`` of joblib's for the engine that ``joblib.parallel_config`` chose."""
    import joblib  # noqa: PLC0415 - only a sweep needs it

    if n_jobs is not None:
        config.check_type("n_jobs", n_jobs, int)
        if n_jobs == 0:
            raise OptionError(
                "n_jobs=0 can't be used: expected a number of workers, or -1 for all processors."
            )
    backend, _ = joblib.parallel.get_active_backend()
    live = getattr(backend, "supports_return_generator", False)
    try:
        return joblib.Parallel(
            n_jobs=n_jobs,
            return_as="generator_unordered" if live or n_jobs == 1 else "list",
            batch_size=1,  # a training is no small task
            max_nbytes=None,  # else large arrays come as memory maps that can't be written to
        )
    except (ValueError, ImportError) as error:
        raise OptionError(f"joblib can't use the engine that it was told to: {error}") from error


def _check_travels(what: SweepTarget, points: Iterable[Mapping[str, Any]], parallel: Any) -> None:
    """Find out before anything runs whether what must be pickled can be."""
    if parallel.n_jobs == 1 or getattr(parallel._backend, "supports_sharedmem", False):  # noqa: SLF001 - nobody else tells
        return
    import cloudpickle  # noqa: PLC0415 - as loky, Dask and Ray do it, or with a copy of it

    parts = {f"the value of {name!r}": values for name, values in values_by_parameter(points).items()}
    for part, value in {f"{what.name}()": what.call, **parts}.items():
        try:
            cloudpickle.CloudPickler(_NullWriter(), protocol=5, buffer_callback=lambda _: None).dump(value)
        except Exception as error:
            raise OptionError(
                f"{part} can't travel to another process: {describe_error(error)}. Make it inside the "
                "function, or sweep in this process, with joblib.parallel_config(backend='threading')."
            ) from error


class _NullWriter:
    """A file that forgets."""

    def write(self, data: Any) -> int:
        return len(data)


def _digests(what: SweepTarget, texts: Iterable[Mapping[str, str]]) -> list[str]:
    """A digest of the code and of each point's parameters, as they are logged."""
    source = code(what.body)
    return [hashlib.sha256(msgspec.json.encode([source, sorted(text.items())])).hexdigest() for text in texts]


def _finished_before(resume: bool | str, chosen: Settings) -> tuple[str, dict[str, list[FinishedTrial]]]:
    """The id of the sweep, and what is finished of it: digest to runs, the newest first."""
    if not isinstance(resume, bool):
        config.check_type("resume", resume, str)
        if not resume.isalnum():
            raise OptionError(
                f"resume={resume!r} can't be used: expected the id or the key of a sweep's run."
            )
    if resume is False or chosen.disabled:
        return uuid.uuid4().hex, {}
    where = destination(chosen)[:3]
    root, offline = spool_root(chosen.spool), chosen.delivery == "off"
    sweep_id = None
    if isinstance(resume, str):
        with contextlib.suppress(JournalError, OSError):
            sweep_id = header(RunFolder(root / resume).journal).tags.get(SWEEP)
        if sweep_id is None and not offline:
            from mlwrap._mlflow.queries import sweep_of  # noqa: PLC0415 - loads MLflow

            sweep_id = sweep_of(*where, resume)
        if sweep_id is None:
            raise OptionError(
                f"resume={resume!r} names no sweep that is in {where[0]} or waits in {root}: expected the id "
                "or the key of a sweep's run, which its table has as run_id and key; True looks at all."
            )
    found = list(waiting_trials(root, sweep_id))
    seen = {point.key for _, point in found}
    if not offline:
        from mlwrap._mlflow.queries import finished_trials  # noqa: PLC0415 - loads MLflow

        found += [
            (digest, point) for digest, point in finished_trials(*where, sweep_id) if point.key not in seen
        ]
    known: dict[str, list[FinishedTrial]] = {}
    for digest, point in found:
        known.setdefault(digest, []).append(point)
    return sweep_id or uuid.uuid4().hex, known


def _settings_for_trials(
    run: Run, chosen: Settings, what: SweepTarget, sweep_id: str
) -> tuple[EffectiveSettings, ParentRun | None]:
    """What the points' runs are told: the settings of this process, and of the run around them."""
    below, above = config.effective_settings()
    below, above = dict(below), {**above, "quiet": True}  # the sweep itself tells how it goes
    if chosen.spool is not None:
        below["spool"] = str(Path(chosen.spool).expanduser().absolute())
    folder = RunFolder(spool_root(chosen.spool) / run.key) if run.recorded else None
    if folder is None or not folder.journal.exists():  # disabled, or not the worker that records
        return EffectiveSettings(below, above), None
    first, run_id = header(folder.journal), run.run_id
    below.setdefault(
        "chief", True
    )  # who was handed a point has all of it, whatever its rank among the workers
    if first.experiment_id is not None:
        below.pop("experiment", None)
    elif what.options.get("experiment") is None:
        below["experiment"] = first.experiment or "Default"
    if run_id is None and not run.offline:
        # Made first, so that its children find it in MLflow from wherever they are. If MLflow is away now, it
        # is found by its key once it is there.
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

            run_id = deliver(folder).run_id
    tags = {SWEEP: sweep_id}
    place = first.experiment, first.experiment_id
    around = ParentRun(run.key, run.tracking_uri, run.offline, run_id, *place, tags)
    return EffectiveSettings(below, above), around


def _outcomes(
    parallel: Any, job: SweepWorker, todo: list[tuple[int, dict[str, Any], str]]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    import joblib  # noqa: PLC0415 - see above

    yield from parallel(joblib.delayed(job)(*point) for point in todo)


@contextlib.contextmanager
def _report_progress(chosen: Settings, name: str, total: int) -> Iterator[Callable[[str], object]]:
    """Tell how far the sweep is, unless the user wants it quiet."""
    if chosen.quiet:
        yield str  # which does nothing with a line
    else:
        with console.counting(name, total) as tell:
            yield tell


def _trial_line(row: SweepPoint, texts: Mapping[str, str]) -> str:
    """What is told of a point: its arguments without secrets, for they are as they are logged."""
    params = ", ".join(f"{name}={texts[name][:20]}" for name in row.params if name in texts)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items())
    return "  ".join(part for part in (row.status, params, metrics, row.error) if part)


def _warn_how_to_resume(run: Run, done: int, total: int) -> None:
    if run.recorded:
        warn(
            f"the sweep {run.name!r} ends with {done} of {total} points done. To run the others, sweep again "
            f"with resume={run.key!r}."
        )
