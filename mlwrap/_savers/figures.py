"""Write figures of matplotlib, plotly, Altair and Bokeh, and images of Pillow.

Each is written as MLflow's ``log_figure`` and ``log_image`` do: interactive figures as HTML, which loads its
JavaScript from the web, and others as a picture. Nothing is imported to identify a figure.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mlwrap._savers.identify import class_name, has_class

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


class FigureKind(NamedTuple):
    """The figures of one package.

    Attributes:
        matches: Returns whether an object is such a figure.
        suffix: The default suffix of its file.
        write: Writes it to a path, in the format of the path's suffix.
    """

    matches: Callable[[Any], bool]
    suffix: str
    write: Callable[[Any, Path], object]


def stands_for(value: Any) -> Any:
    """Return the figure of axes, or of an array of axes from ``subplots``; any other ``value`` as it is."""
    candidate = value
    if has_class(value, "ndarray", packages=("numpy",)) and value.dtype == object and value.size:
        candidate = value.flat[0]
    depth = 0
    while has_class(candidate, "Axes", "SubFigure", packages=("matplotlib",)) and depth < 10:  # noqa: PLR2004
        candidate, depth = candidate.figure, depth + 1
    return candidate if _is_matplotlib(candidate) else value


def is_figure(value: object) -> bool:
    """Return whether ``value`` is a figure that :func:`write_figure` can write."""
    return any(kind.matches(value) for kind in _KINDS)


def figure_suffix(value: object) -> str:
    """Return the default suffix of a figure's file."""
    return _kind_of_figure(value).suffix


def write_figure(value: Any, path: Path) -> None:
    """Write a figure, axes, or an image, in the format of the path's suffix.

    Raises:
        TypeError: It is none of these, or its package can't write that format.
    """
    value = stands_for(value)
    if is_image(value):
        value.save(path)
        return
    _kind_of_figure(value).write(value, path)


def is_image(value: object) -> bool:
    """Return whether ``value`` is an image of Pillow."""
    return has_class(value, "Image", packages=("PIL",))


def image_suffix(value: Any) -> str:
    """Return the default suffix of an image's file: PNG does not support all pixel modes."""
    return ".png" if value.mode in _PNG_MODES else ".tiff"


def write_image(value: Any, path: Path) -> None:
    """Write an image in a lossless format."""
    value.save(path, format="PNG" if value.mode in _PNG_MODES else "TIFF")


def _kind_of_figure(value: object) -> FigureKind:
    figure_kind = next((kind for kind in _KINDS if kind.matches(value)), None)
    if figure_kind is None:
        raise TypeError(
            f"{class_name(value)} is no figure that mlwrap knows. Expected one of matplotlib, plotly, Altair "
            "or Bokeh, an image of Pillow, or an object with a savefig()."
        )
    return figure_kind


def _is_matplotlib(value: object) -> bool:
    return has_class(value, "Figure", packages=("matplotlib",))


def _is_plotly(value: object) -> bool:
    return has_class(value, "BaseFigure", packages=("plotly",))


def _write_plotly(value: Any, path: Path) -> None:
    if path.suffix.lower() in {".html", ".htm"}:
        value.write_html(path, include_plotlyjs="cdn", auto_open=False)
    elif path.suffix.lower() == ".json":
        value.write_json(path)
    else:
        value.write_image(path)  # plotly needs kaleido for it, and says so


def _is_altair(value: object) -> bool:
    return has_class(value, "TopLevelMixin", packages=("altair",))


def _is_bokeh(value: object) -> bool:
    return has_class(value, "LayoutDOM", packages=("bokeh",))


def _write_bokeh(value: Any, path: Path) -> None:
    if path.suffix.lower() not in {".html", ".htm"}:
        ending = path.suffix or "a file without an ending"
        raise TypeError(f"a Bokeh figure is written as .html, and not as {ending}. Name the file so.")
    embed, resources = (importlib.import_module(f"bokeh.{name}") for name in ("embed", "resources"))
    path.write_text(embed.file_html(value, resources.CDN, title=path.stem), encoding="utf-8")


def _has_savefig(value: object) -> bool:
    """Return whether an object has a ``savefig()``, as seaborn's grids do."""
    return callable(getattr(type(value), "savefig", None))


_KINDS = (
    FigureKind(_is_matplotlib, ".png", lambda figure, path: figure.savefig(path)),
    FigureKind(_is_plotly, ".html", _write_plotly),
    FigureKind(_is_altair, ".html", lambda chart, path: chart.save(str(path))),
    FigureKind(_is_bokeh, ".html", _write_bokeh),
    FigureKind(_has_savefig, ".png", lambda figure, path: figure.savefig(path)),
)
