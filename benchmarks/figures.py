"""The figures of the results, as SVG: the same results give the same bytes with the same matplotlib.

Each says in its description what it was drawn from, so that a test can tell whether it is up to date without
drawing it again.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# On a white card of their own, they can be read on a light page and on a dark one.
STYLE = {
    "svg.hashsalt": "mlwrap",
    "font.size": 9,
    "text.color": "#1f2328",
    "axes.labelcolor": "#1f2328",
    "xtick.color": "#424a53",
    "ytick.color": "#1f2328",
    "axes.edgecolor": "#8c959f",
    "axes.facecolor": "#ffffff",
    "figure.facecolor": "#ffffff",
    "grid.color": "#d0d7de",
}
LESS, MORE, GOAL = "#2a78b8", "#c2571a", "#1f2328"
LINES = ("#2a78b8", "#c2571a", "#2f7d4f", "#7a4fa3")


def stamp(drawn: Any) -> str:
    """What a figure of this says that it was drawn from: the data, and this code."""
    text = json.dumps(drawn, sort_keys=True) + Path(__file__).read_text()
    return f"drawn from {hashlib.sha256(text.encode()).hexdigest()}"


def shown(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have a place in the figure of all, and in the README."""
    return [row for result in results.values() for row in result["rows"] if row.get("factor")]


def growths(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How things grow."""
    return [some for result in results.values() for some in result["series"]]


def draw(results: Mapping[str, Any], every: Path, growing: Path) -> None:
    """Write both figures: each row's ratio, and how costs grow."""
    import matplotlib  # noqa: PLC0415 - the test that looks at the stamps needs none

    with matplotlib.rc_context(STYLE):
        _all_in_one(shown(results), every)
        _growth(growths(results), growing)


def _all_in_one(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Each row's ratio as a bar, on a logarithmic axis; to the left is less, and better."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    from matplotlib.ticker import NullLocator  # noqa: PLC0415 - as above

    figure = Figure(figsize=(9, 0.7 + 0.29 * max(1, len(rows))))
    axes = figure.add_subplot()
    for at, row in enumerate(reversed(rows)):
        factor = row["factor"]
        axes.barh(at, factor - 1, left=1, color=LESS if factor <= 1 else MORE, height=0.62, zorder=2)
        side = "right" if factor <= 1 else "left"
        axes.annotate(
            _times(factor),
            (factor, at),
            (-4 if side == "right" else 4, 0),
            textcoords="offset points",
            va="center",
            ha=side,
        )
        if row.get("most"):
            axes.plot([row["most"]] * 2, [at - 0.42, at + 0.42], color=GOAL, linewidth=1.6, zorder=3)
    axes.set_yticks(range(len(rows)), [plain(row["short"]) for row in reversed(rows)])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda factor, _: f"1/{1 / factor:,.0f}" if factor < 1 else f"{factor:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    factors = [row["factor"] for row in rows] or [1]
    axes.set_xlim(min(factors) / 6, max(*factors, 1) * 6)
    axes.set_ylim(-0.6, max(0.6, len(rows) - 0.4))
    axes.axvline(1, color=GOAL, linewidth=0.8)
    axes.grid(axis="x", zorder=0)
    axes.tick_params(length=0)
    figure.supxlabel(
        "mlwrap over the rival named after the colon: less is better. Black mark: the target", fontsize=9
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    _save(figure, path, rows, "mlwrap's time or count over each rival's, as bars on a logarithmic axis")


def _growth(panels: Sequence[dict[str, Any]], path: Path) -> None:
    """Each thing that grows, in a panel of its own with logarithmic axes."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415 - as above

    across = 2
    down = max(1, -(-len(panels) // across))
    figure = Figure(figsize=(9, 3.0 * down))
    for at, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, at + 1)
        for (name, points), colour in zip(panel["lines"].items(), LINES, strict=False):
            said = f"{name}, exponent {panel['exponents'][name]:.2f}"
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=3.5,
                color=colour,
                label=textwrap.fill(said, 40),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        low = min(y for points in panel["lines"].values() for _, y in points)
        high = max(y for points in panel["lines"].values() for _, y in points)
        # Room, so that what is flat looks flat; and for the legend.
        axes.set_ylim(low / 5, high * 6 * 2.5 ** len(panel["lines"]))
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda number, _: f"{number:,g}" if number < 1e6 else f"{number:,.0f}")
        axes.set_title(panel["title"], fontsize=9.5)
        axes.set_xlabel(panel["x"])
        axes.set_ylabel(panel["y"])
        axes.grid(zorder=0)
        axes.legend(fontsize=7.5, loc="upper left", frameon=False)
    _save(figure, path, panels, "How costs grow, on logarithmic axes")


def plain(text: str) -> str:
    """Without Markdown's marks."""
    return text.replace("`", "")


def _times(factor: float) -> str:
    return f"1/{1 / factor:,.0f}" if factor < 0.15 else f"{factor:.2f}"


def _save(figure: Any, path: Path, drawn: Sequence[Any], title: str) -> None:
    metadata = {"Date": None, "Creator": None, "Title": title, "Description": stamp(drawn)}
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata=metadata)
    # matplotlib leaves blanks at the ends of lines.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
