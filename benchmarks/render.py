"""Makes the page, the README's part and the figures of what the benchmarks kept."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import figures

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/reference/benchmarks.md"
README = ROOT / "README.md"
ALL, GROWTH = ROOT / "docs/figures/benchmarks.svg", ROOT / "docs/figures/growth.svg"
BEGIN, END = "<!-- benchmarks: made by benchmarks/render.py -->", "<!-- /benchmarks -->"
ORDER = (
    "calls",
    "fit",
    "kills",
    "delivery",
    "sync",
    "overhead",
    "models",
    "checkpoints",
    "history",
    "files",
    "senders",
    "scale",
    "growth",
)
CLAIMS = {
    "P1": "logging metrics takes microseconds, and the memory of a training does not grow with them",
    "P2": "what a call has returned for survives `kill -9`",
    "P3": "a callback at every step does not slow `fit`",
    "P4": "a small model is logged in a fiftieth of the time that `log_model` takes as users call it",
    "P5": "and in less than the shortest code by hand takes",
    "P6": "a large model costs the training process a part of what saving it costs",
    "P7": "and is READY sooner than by hand",
    "P8": "a model costs no more in a long run than in an empty one",
    "P9": "a run takes few requests",
    "P10": "a small tracked call costs less than the same by hand; not waited for, next to nothing",
    "P11": "with the server gone a call costs the same",
    "P12": "and leaving takes no longer than the deadline",
    "P13": "SIGTERM: all is on the disk, and the run is KILLED in MLflow",
    "P14": "`kill -9`: the run is KILLED in MLflow, with all its points, and nobody did anything",
    "P15": "the import is quick",
    "P16": "what is disabled costs nothing",
    "P17": "`mlwrap sync` is as fast as MLflow takes points",
    "P18": "many files are uploaded several at a time",
    "P19": "a short script is closed in MLflow as soon as the sender that is there has delivered it",
    "P20": "all processes of a spool share one sender",
    "P21": "a thousand runs at once lose nothing and wait for nothing",
    "growth": "calls, starts and memory are flat in the length of training, delivery and models linear in their size",
}
INTRODUCTION = (
    """Made by `make bench`, which runs the scripts in `benchmarks/` in an environment that has the rivals, too, keeps
    what each measured in `benchmarks/results/`, and makes this page of that: do not edit it. Servers of MLflow's run
    where the rivals are not, as `pip install mlflow` gives them: with what some rivals bring along, uvicorn answers otherwise.
    `.venv-bench/bin/python benchmarks/run.py NAME … --repeats N` measures some of it again, and
    `benchmarks/render.py` only renders.""",
    """Times are medians over several processes of each, which take turns on one machine. The ratio is mlwrap's over
    the rival's in the same run: less is better. Targets were set before; rows that a rival wins stay, and a
    rival that failed says why. `TMPDIR` names the disk to measure on. Not an ext4 without a journal: after many
    files were deleted, as benchmarks do, making one takes up to thirty times as long for minutes.""",
)
MARKS = {True: "reached", False: "**not reached**", None: ""}


def main() -> None:
    """Write all of it."""
    results = stored()
    ALL.parent.mkdir(exist_ok=True)
    figures.draw(results, ALL, GROWTH)
    PAGE.write_text(page(results))
    README.write_text(readme(README.read_text(), results))
    print(f"{PAGE.relative_to(ROOT)}, its figures and the README's part are of {len(results)} results")


def stored() -> dict[str, Any]:
    """What each script kept, by its name, in the page's order."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    names = sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return {name: found[name] for name in names}


def page(results: Mapping[str, Any]) -> str:
    """The page ``docs/reference/benchmarks.md``."""
    parts = [
        "# Benchmarks",
        *map(_filled, INTRODUCTION),
        f"![mlwrap against each rival]({_from_page(ALL)})",
        _claims(results),
        *(_section(name, result) for name, result in results.items()),
    ]
    return "\n\n".join(parts) + "\n"


def readme(text: str, results: Mapping[str, Any]) -> str:
    """The README with its part about speed brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    head = ["| what | mlwrap | rival | ratio |", "|---|---|---|---|"]
    cells = ("what", "ours", "rival", "ratio")
    lines = head + [f"| {' | '.join(row[cell] for cell in cells)} |" for row in _chosen(results)]
    figure = f"![mlwrap against each rival]({ALL.relative_to(ROOT)})"
    return f"{before}{BEGIN}\n{figure}\n\n" + "\n".join(lines) + f"\n{END}{after}"


def _chosen(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For the README one row of each claim that stands in the figure: the one where we gain least."""
    best: dict[str, dict[str, Any]] = {}
    for row in figures.shown(results):
        if row["claim"] not in best or row["factor"] > best[row["claim"]]["factor"]:
            best[row["claim"]] = row
    return list(best.values())


def _claims(results: Mapping[str, Any]) -> str:
    lines = ["| # | claim | rows that reach their target |", "|---|---|---|"]
    for claim, text in CLAIMS.items():
        rows = [row for result in results.values() for row in result["rows"] if row["claim"] == claim]
        judged = [row["reached"] for row in rows if row["reached"] is not None]
        told = f"{sum(judged)} of {len(judged)}" if judged else "not measured"
        lines.append(f"| {claim} | {text} | {told if judged and all(judged) else f'**{told}**'} |")
    return "\n".join(lines)


def _section(name: str, result: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
    machine = result["machine"]
    load = " to ".join(f"{each:g}" for each in machine["load"])
    asked = " ".join(result["arguments"])
    disk = f"{machine['disk']}, " if "disk" in machine else ""  # it was not always told
    lines = [
        f"## {result['title']}",
        *([_filled(result["about"])] if result["about"] else []),
        _filled(
            f"`benchmarks/{name}.py{f' {asked}' if asked else ''}`, {result['date']}, {result['seconds']} s, on {machine['system']}, "
            f"{machine['cores']} cores, {machine['memory_gb']} GB, {disk}load {load}; {versions}."
        ),
        "\n".join(
            [
                "| # | what | mlwrap | rival | ratio | target | |",
                "|---|---|---|---|---|---|---|",
                *(_row(row) for row in result["rows"]),
            ]
        ),
    ]
    if result["series"]:
        lines.append(f"![How costs grow]({_from_page(GROWTH)})")
    return "\n\n".join(lines)


def _row(row: Mapping[str, Any]) -> str:
    cells = [row[cell].replace("|", "\\|") for cell in ("claim", "what", "ours", "rival", "ratio", "target")]
    return f"| {' | '.join(cells)} | {MARKS[row['reached']]} |"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 130, break_on_hyphens=False, break_long_words=False)


def _from_page(path: Path) -> str:
    return f"../{path.parent.name}/{path.name}"


if __name__ == "__main__":
    main()
