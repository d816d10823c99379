"""P1: a call to log metrics, and the memory of a million points; against those that log metrics."""

from __future__ import annotations

from harness import NOTHING, OURS, PACKAGES, RIVALS, argument, folder, head, interleaved, row
from loggers import HEAD, SOURCES, that_work

REPEATS = argument(1, 3)
POINTS = argument(2, 1_000_000)
SECONDS = 25  # that a logger gets for its million
CALLS = """
def timed(pause, most=2000):
    times, until = [], time.perf_counter() + 5
    while len(times) < most and time.perf_counter() < until:
        step = timed.step = timed.step + 1
        values = {f"m{i}": (step + i) / 7 for i in range(5)}
        began = time.perf_counter_ns()
        log(values, step)
        times.append(time.perf_counter_ns() - began)
        if pause:
            time.sleep(pause)
    times = sorted(times)
    return times[len(times) // 2] / 1e9, times[len(times) * 99 // 100] / 1e9, times[-1] / 1e9
timed.step = -1
fast, paced = timed(0), timed(0.0005)
names = "p50", "p99", "max"
print(json.dumps({**dict(zip(names, fast)), **{"paced " + n: v for n, v in zip(names, paced)}}), flush=True)
os._exit(0)  # MLflow's async logging would take a minute to say good-bye
"""
MEMORY = """
import resource
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
most, seconds = int(sys.argv[1]) // 5, float(sys.argv[2])
until, first, done = time.perf_counter() + seconds, 0.0, 0
for step in range(most):
    if step == 20_000 // 5:  # what is made once is made
        first, done = rss(), step
    log({f"m{i}": (step + i) / 7 for i in range(5)}, step)
    if time.perf_counter() > until:
        break
made = 5 * (step + 1 - done) if first else 0
print(json.dumps({"megabytes": rss() - first if first else 0, "points": made}), flush=True)
import psutil
for child in psutil.Process().children():
    child.kill()  # a sender of a million points has two minutes' work before it
os._exit(0)
"""


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "A call to log metrics",
            "Five numbers a call: 2000 calls as fast as they go, then 2000 with a pause of 0.5 ms before each. "
            "A call of mlwrap's has been written to the journal when it returns; W&B, trackio, TensorBoard's "
            "writers and MLflow's async logging put it into a queue in memory.",
            (*PACKAGES, *RIVALS),
        )
        there = that_work()
        calls(there)
        memory(there)


def calls(there: list[str]) -> None:
    """How long a call takes."""
    found = interleaved(REPEATS, {name: HEAD + SOURCES[name] + CALLS for name in there}, timeout=120)
    for kind, said in (("", "as fast as they go"), ("paced ", "with a pause before each")):
        what = f"`log_metrics` of 5, {said}: p50 / p99 / max, µs"
        ours = _three(found[OURS], kind)
        reached = bool(ours) and ours[0] <= 5e-6 and ours[1] <= 25e-6
        text = _text(ours) or found[OURS].get("failed", "")
        row("P1", what, text, NOTHING, NOTHING, "≤5 / ≤25 µs", reached=reached)
        for name in there[1:]:
            theirs = _three(found[name], kind)
            factor = ours[0] / theirs[0] if ours and theirs else None
            row(
                "P1",
                what,
                text,
                f"{name} {_text(theirs) or found[name].get('failed', '')}",
                f"{factor:.3g}" if factor else NOTHING,
                NOTHING,
                factor=factor,
                short="" if kind else f"one `log_metrics`: {name}",
            )


def _three(found: dict, kind: str) -> tuple[float, ...]:
    return tuple(found[kind + name] for name in ("p50", "p99", "max")) if "p50" in found else ()


def _text(times: tuple[float, ...]) -> str:
    return " / ".join(f"{each * 1e6:,.1f}" for each in times)


def memory(there: list[str]) -> None:
    """What the training process takes more, over a million points."""
    sources = {name: HEAD + SOURCES[name] + MEMORY for name in there}
    found = interleaved(1, sources, str(POINTS), str(SECONDS), timeout=120)
    ours = found[OURS]
    what = f"memory of the training process, after the first 20,000 of {POINTS:,} points, {SECONDS} s at most"
    reached = ours.get("megabytes", 1e9) <= 10
    row("P1", what, _megabytes(ours), NOTHING, NOTHING, "≤10 MB", reached=reached)
    for name in there[1:]:
        row("P1", what, _megabytes(ours), f"{name} {_megabytes(found[name])}", NOTHING, NOTHING)


def _megabytes(found: dict) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}"
    if not found["points"]:
        return "not so many points in the time"
    return f"{found['megabytes']:+.1f} MB over {found['points']:,.0f} points"


if __name__ == "__main__":
    main()
