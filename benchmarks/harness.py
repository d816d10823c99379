"""What the benchmarks share: children, servers, turns, rows, and the JSON that all is kept in.

A benchmark is a script beside this one. It stands in :func:`folder`, says what it is about with :func:`head`,
measures with :func:`interleaved`, and says what came out with :func:`row` or :func:`against`. At its end all
that was said lies in ``results/<script>.json``, which ``render.py`` makes the page and the figures of. If the
script fails, the results of before stay as they are. Its first argument is the number of repeats.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
# A server as `pip install mlflow` gives it. The rivals bring parsers of HTTP along that uvicorn then takes.
SERVER = Path(__file__).parents[1] / ".venv/bin/mlflow"
PACKAGES = ("mlwrap", "mlflow", "keras", "tensorflow-cpu")
RIVALS = ("wandb", "trackio", "tensorboardx", "dvclive")
OURS = "mlwrap"  # what ours is called among the sources that take turns
NOTHING = "-"
TIMED = """
import time
def timed(call, times):
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken
"""  # for the source of a child: the seconds that each of some warm calls takes
_REST = 0.5  # seconds that a server is watched for

_found: dict[str, Any] = {}  # what this script will be kept as
_store: list[Path] = []  # an empty store of MLflow's, made once


class Failed(RuntimeError):
    """A child did not do what it was to."""


def argument(position: int, default: int) -> int:
    """A number from the command line; the first is the number of repeats."""
    return int(sys.argv[position]) if len(sys.argv) > position else default


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own, which is the working folder, removed at the end; then the results are kept."""
    began = time.monotonic()
    load = os.getloadavg()[0]
    made = Path(tempfile.mkdtemp(prefix="mlwrap-bench-"))
    here = Path.cwd()
    os.chdir(made)
    for name in [name for name in os.environ if name.startswith(("MLWRAP_", "MLFLOW_", "WANDB_"))]:
        del os.environ[name]
    os.environ |= {
        "MLWRAP_SPOOL": str(made / "spool"),
        "MLWRAP_QUIET": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that none of this needs
        "WANDB_ERROR_REPORTING": "false",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(made / "matplotlib"),  # its list of fonts takes seconds to make
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        yield made
    finally:
        os.chdir(here)
        shutil.rmtree(made, ignore_errors=True)
        _store.clear()
    _found["seconds"] = round(time.monotonic() - began)
    _found["machine"]["load"] = [round(load, 1), round(os.getloadavg()[0], 1)]
    _keep()


def head(title: str, about: str = "", packages: Sequence[str] = PACKAGES) -> None:
    """Say what is measured; print what the table begins with: versions, the machine.

    Args:
        title: Of the section.
        about: A sentence or two of how it is measured, for the page.
        packages: Whose versions matter.
    """
    versions = {name: _version(name) for name in packages}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    system, disk = f"{platform.system()} {platform.machine()}", _disk()
    machine = {"system": system, "cores": os.cpu_count(), "memory_gb": round(memory), "disk": disk}
    _found.setdefault("machine", machine)
    _found.setdefault("script", _script())
    _found.setdefault("title", title)
    _found.setdefault("about", about)
    _found.setdefault("date", time.strftime("%Y-%m-%d", time.gmtime()))
    _found.setdefault("arguments", sys.argv[1:])
    _found.setdefault("versions", {"Python": platform.python_version(), **versions})
    for what in ("rows", "series", "samples"):
        _found.setdefault(what, [])
    said = ", ".join(f"{name} {number}" for name, number in _found["versions"].items())
    print(f"## {title}\n\n{said}.")
    print(f"{system}, {os.cpu_count()} cores, {memory:.0f} GB, {disk}, load {os.getloadavg()[0]:.1f}.\n")
    print("| # | what | mlwrap | rival | ratio | target |\n|---|---|---|---|---|---|", flush=True)


def _disk() -> str:
    """The file system of the working folder, and how long it takes there to make a file."""
    here, taken = Path.cwd(), []
    above = [disk for disk in psutil.disk_partitions(all=True) if here.is_relative_to(disk.mountpoint)]
    for number in range(100):
        file = here / f"probe-{number}"
        began = time.perf_counter()
        file.touch()
        taken.append(time.perf_counter() - began)
        file.unlink()
    kind = max(above, key=lambda disk: len(disk.mountpoint)).fstype
    return f"{kind} that makes a file in {time_text(statistics.median(taken))}"


def row(
    *cells: str,
    reached: bool | None = None,
    factor: float | None = None,
    most: float | None = None,
    short: str = "",
) -> None:
    """Say one thing that came out.

    Args:
        *cells: The claim's number, what was measured, ours, the rival's, the ratio, the target.
        reached: Whether the target is; ``None`` where there is none, or it could not be measured.
        factor: Ours over the rival's, where less is better: it stands in the figure if it has a ``short`` name.
        most: The target for that.
        short: What it is called in the figure and in the README, as ``what: against whom``.
    """
    kept = dict(zip(("claim", "what", "ours", "rival", "ratio", "target"), cells, strict=True))
    kept |= {"reached": reached}
    if short:
        kept |= {"factor": _rounded(factor), "most": most, "short": short}
    _found["rows"].append(kept)
    said = {True: " (reached)", False: " (NOT reached)", None: ""}[reached]
    print("| " + " | ".join(cells) + f"{said} |", flush=True)


def against(
    claim: str,
    what: str,
    found: Mapping[str, Mapping[str, Any]],
    rival: str,
    *,
    key: str = "seconds",
    called: str = "",
    most: float | None = None,
    short: str = "",
) -> None:
    """A row of two times, ours over the rival's; a side that failed is told by its reason.

    Args:
        claim: Its number.
        what: What was measured.
        found: What :func:`interleaved` gave.
        rival: The rival's name there.
        key: Which of the numbers, in seconds.
        called: What the rival is called; by default as there.
        most: The target: the largest ratio.
        short: As in :func:`row`.
    """
    ours, theirs = (_number(found, name, key) for name in (OURS, rival))
    cells = [time_text(ours), f"{called or rival} {time_text(theirs)}"]
    target = NOTHING if most is None else f"≤{most:g}"
    factor = ours / theirs if isinstance(ours, float) and isinstance(theirs, float) else None
    ratio = NOTHING if factor is None else f"{factor:.3g}"
    reached = None if factor is None or most is None else factor <= most
    if isinstance(ours, str) and most is not None:
        reached = False
    row(claim, what, *cells, ratio, target, reached=reached, factor=factor, most=most, short=short)


def series(
    title: str,
    x: str,
    y: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    most: float,
) -> None:
    """A figure of how something grows, and a row for each line with its slope.

    Args:
        title: What grows.
        x: What it grows with.
        y: The unit.
        lines: Name to points (x, y).
        most: The largest exponent that is claimed: about 0 for flat, 1 for linear.
    """
    slopes = {line: _rounded(exponent(points)) for line, points in lines.items()}
    drawn = {line: [[_rounded(a), _rounded(b)] for a, b in points] for line, points in lines.items()}
    kept = {"title": title, "x": x, "y": y, "lines": drawn, "exponents": slopes}
    _found["series"].append(kept)
    for line, points in lines.items():
        (few, first), (many, last) = points[0], points[-1]
        row(
            "growth",
            f"{title}: {line}, {few:,g} to {many:,g} {x}",
            f"{first:.3g} to {last:.3g} {y}",
            NOTHING,
            f"exponent {slopes[line]:.2f}",
            f"exponent ≤{most:g}",
            reached=slopes[line] <= most,
        )


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of a line through points whose axes are both logarithmic."""
    logs = [(math.log(max(x, 1)), math.log(max(y, 1e-9))) for x, y in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def python(
    source: str,
    *arguments: str,
    here: Path | None = None,
    interpreter: str | Path = sys.executable,
    timeout: float = 900,
    **environment: str,
) -> str:
    """Run a script in a process of its own, in a new folder with an empty store; what it printed.

    Args:
        source: The script. ``os.environ["STORE"]`` tells it the URI of its sqlite store.
        *arguments: Its arguments.
        here: The folder; by default a new one, which is removed.
        interpreter: Another environment's Python.
        timeout: Seconds.
        **environment: Variables.

    Raises:
        Failed: It did, or took too long.
    """
    made = here or Path(tempfile.mkdtemp(prefix="child-", dir=Path.cwd()))
    try:
        done = subprocess.run(
            [str(interpreter), "-W", "ignore", "-c", source, *arguments],
            capture_output=True,
            text=True,
            cwd=made,
            env={**surroundings(made), **environment},
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {timeout:.0f} s") from None
    finally:
        if here is None:
            shutil.rmtree(made, ignore_errors=True)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        print(done.stderr[-2000:], file=sys.stderr)
        raise Failed(lines[-1][:120] if lines else f"exit {done.returncode}")
    return done.stdout


def surroundings(made: Path) -> dict[str, str]:
    """The environment of a child that lives in a folder of its own."""
    store = made / "mlflow.db"
    if not store.exists():
        shutil.copy(_empty_store(), store)
    return {
        **os.environ,
        "STORE": f"sqlite:///{store}",
        "HOME": str(made),
        "MLWRAP_SPOOL": str(made / "spool"),
        "TRACKIO_DIR": str(made / "trackio"),
        "WANDB_DIR": str(made),
    }


def numbers(source: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """The JSON object that a script prints on a line of its own, the last such."""
    lines = [line for line in python(source, *arguments, **options).splitlines() if line.startswith("{")]
    if not lines:
        raise Failed("it told nothing")
    return dict(json.loads(lines[-1]))


def interleaved(
    repeats: int, sources: Mapping[str, str], *arguments: str, **options: Any
) -> dict[str, dict[str, Any]]:
    """Run scripts in turns, there and back, so that what else the machine does hits all of them.

    Args:
        repeats: Processes of each.
        sources: Scripts by name; each prints a JSON object of numbers, or of lists of them.
        *arguments: Of all scripts.
        **options: Of :func:`python`.

    Returns:
        For each script the median of each number, over all its processes; of one that failed
        ``{"failed": why}``. It is not tried again, and what takes turns with it goes on.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in sources}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        order = list(sources) if repeat % 2 == 0 else list(reversed(sources))
        for name in order:
            if name in failed:
                continue
            say(f"{name}, {repeat + 1} of {repeats}")
            try:
                told = numbers(sources[name], *arguments, **options)
            except Failed as error:
                failed[name] = str(error)
                say(f"{name} failed: {error}")
                continue
            for what, value in told.items():
                some = value if isinstance(value, list) else [value]
                samples[name].setdefault(what, []).extend(map(float, some))
    _found.get("samples", []).append(
        {
            name: {what: list(map(_rounded, some)) for what, some in each.items()}
            for name, each in samples.items()
        }
    )
    medians = {
        name: {what: statistics.median(some) for what, some in each.items() if some}
        for name, each in samples.items()
    }
    return {name: {"failed": failed[name]} if name in failed else medians[name] for name in sources}


class Server:
    """``mlflow server`` on the loopback, as it is without the rivals, and how many requests it has answered.

    Args:
        folder: Where its store and its artifacts lie.
        workers: How many; ``None`` for MLflow's default.
        store: URI of its store; by default a new sqlite one.
    """

    def __init__(self, folder: Path, workers: int | None = 1, store: str | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        made = folder / f"server-{self.port}"
        made.mkdir()
        if store is None:
            store = f"sqlite:///{shutil.copy(_empty_store(), made / 'server.db')}"
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = made / "server.log"
        command = [str(SERVER), "server", "--port", str(self.port)]
        command += ["--workers", str(workers)] if workers else []
        command += ["--backend-store-uri", store]
        command += ["--artifacts-destination", str(made / "artifacts")]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=made)
        until(self._answers, 120)
        until(self._at_rest, 120)  # one worker answers, and the others start for seconds more

    def __enter__(self) -> Server:  # noqa: PYI034 - Self is of typing from 3.11 on
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
            return
        self.process.kill()
        self.process.wait()

    def requests(self) -> int:
        """Lines of the access log, health checks left out."""
        return sum(' HTTP/1.1" ' in line and "/health" not in line for line in self._log.open())

    def _at_rest(self) -> bool:
        def busy() -> float:
            processes = [server, *server.children(recursive=True)]
            return sum(sum(process.cpu_times()[:2]) for process in processes)

        server = psutil.Process(self.process.pid)
        before = busy()
        time.sleep(_REST)
        return busy() - before < _REST / 10

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200
        except OSError:
            return False


def senders(made: Path) -> list[psutil.Process]:
    """The senders that serve the spool of a folder; they work in it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(made / "spool"):
                found.append(process)
    return found


def memory_of(processes: Sequence[psutil.Process]) -> int:
    """Bytes that some processes have, each page shared among those that have it; 0 of one that has ended."""
    taken = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            taken += process.memory_full_info().pss
    return taken


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until something holds, looking often: it is being timed.

    Raises:
        Failed: It did not come true.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"it did not come true in {seconds:.0f} s")
        time.sleep(0.002)


def time_text(seconds: float | str) -> str:
    """A time as a person says it; a reason why there is none, as it is."""
    if isinstance(seconds, str):
        return seconds
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"


def say(what: str) -> None:
    """Tell whoever looks on how far it is; not a result."""
    print(f"   … {what}", file=sys.stderr, flush=True)


def _number(found: Mapping[str, Mapping[str, Any]], name: str, key: str) -> float | str:
    each = found.get(name, {})
    if "failed" in each:
        return f"failed: {each['failed']}"
    return float(each[key]) if key in each else "not measured"


def _empty_store() -> Path:
    if not _store:
        made = Path.cwd() / "empty"
        made.mkdir()
        source = "from mlflow import MlflowClient; MlflowClient('sqlite:///mlflow.db').search_experiments()"
        subprocess.run([sys.executable, "-c", source], cwd=made, check=True, capture_output=True)
        _store.append(made / "mlflow.db")
    return _store[0]


def _keep() -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{_found['script']}.json"
    path.write_text(json.dumps(_found, indent=1, ensure_ascii=False) + "\n")
    say(f"kept in {path}")


def _script() -> str:
    return Path(sys.modules["__main__"].__file__ or sys.argv[0]).stem


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _version(name: str) -> str:
    try:
        return version(name)
    except LookupError:
        return NOTHING
