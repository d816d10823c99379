"""The table of the zoo in the docs: ``python -m tests.zoo.page`` writes what is found in this environment."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from tests.zoo.harness import ROOT, Row, environment, run

PAGE = ROOT / "docs" / "reference" / "zoo.md"
# The families of each environment, by the name in the marks around its part of the page. Every second
# one is trained beside the others, and both halves take as long.
FAMILIES = {
    "today": [
        *("basics", "inputs_and_outputs", "sequences", "images"),
        *("graphs_and_games", "precision_and_scale", "legacy_keras", "comparisons", "plain_tensorflow"),
        "packages",
    ],
    "estimator": ["estimators", "legacy_keras"],
    "jax": ["backends"],
    "torch": ["backends"],
}

_COLUMNS = (
    *("model", "it stands for", "forms kept", "`load_model`, with its code"),
    *("stock `mlflow.pyfunc`, without its code", "HTTP", "said"),
)


def table(rows: dict[str, Row]) -> str:
    """The rows as Markdown, and under them what was said of models that do not predict everywhere."""
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for row in rows.values():
        mark = ""
        if not row.is_whole:
            said = f"known not to work: {row.gap}" if row.gap else f"`{' '.join(_reasons(row))}`"
            notes.append(f"{row.name}: {said}")
            mark = f"({len(notes)})"
        cells = [row.name, row.stands_for, row.forms, row.with_code, row.stock, row.http, mark]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines).strip()


def _reasons(row: Row) -> list[str]:
    """Of what was said of a model, the sentences that say why it does not predict somewhere."""
    sentences = [part for said in row.said for part in re.split(r"(?<=\.) (?=[A-Z])", said)]
    return [
        sentence for sentence in sentences if re.search("predict|stock MLflow will not|no saver", sentence)
    ]


def part(text: str, name: str) -> str:
    """The part of the page that an environment finds."""
    begin, end = _marks(name)
    return text.partition(begin)[2].partition(end)[0].strip()


def names_in(found: str) -> list[str]:
    """Names of the models in such a part."""
    rows = [line for line in found.splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]]


def with_part(text: str, name: str, found: str) -> str:
    """The page with another such part."""
    begin, end = _marks(name)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{found}\n\n{end}{rest.partition(end)[2]}"


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- zoo {name}: begin -->", f"<!-- zoo {name}: end -->"


def empty_store(folder: Path) -> Path:
    """An sqlite store as MLflow makes it."""
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds, and only the command needs it

    MlflowClient(f"sqlite:///{folder / 'empty.db'}").search_experiments()
    return folder / "empty.db"


def main() -> None:
    """Write this environment's part of the page."""
    name = environment()
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)
        work = Path(folder, "work")
        work.mkdir()
        rows = run(FAMILIES[name], work, empty_store(Path(folder)))
        os.chdir(here)
    for row in rows.values():
        if not row.is_whole or row.with_code == "no":
            print(row.name, *row.said, row.trouble, sep="\n", file=sys.stderr)
    PAGE.write_text(with_part(PAGE.read_text(), name, table(rows)))


if __name__ == "__main__":
    main()
