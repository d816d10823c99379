"""What is neither a model nor a number and can still be kept: each kind of it has a kind of file.

===============  ==================  ===============================================================
kind             file                how
===============  ==================  ===============================================================
path             its own ending      a copy, of regular files only
array            ``.npy``            numpy's, without pickle
tensor           ``.npy``            the same, piece by piece
table            ``.csv``            a pandas frame or series, row by row
figure           ``.png``, ``.html`` see :mod:`mlwrap._savers.figures`
image            ``.png``            of Pillow; ``.tiff`` where PNG has no such pixels
hyperparameters  ``.json``           KerasTuner's: the value of each
data             ``.bin``            bytes as they are
===============  ==================  ===============================================================

Nothing is imported to ask what something is, and nothing is held in memory twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mlwrap._savers.figures import figure_suffix, image_suffix, is_figure, is_image, write_figure, write_image
from mlwrap._savers.identify import has_class, imported
from mlwrap._savers.paths import copy_result
from mlwrap.errors import SaveError, warn

_CHUNK_SIZE = 1 << 24  # bytes of a tensor that are on their way at a time
_MAX_CELLS = 5_000_000  # of a table: about ten seconds of writing


class Output(NamedTuple):
    """Something that is to be an artifact.

    Attributes:
        path: The artifact path.
        content: Text, or what writes the file, or the folder, when it is given a place for it.
    """

    path: str
    content: str | Callable[[Path], object]


class ResultKind(NamedTuple):
    """A kind of results.

    Attributes:
        matches: Whether something is of this kind.
        called: Name of one that has no key.
        suffix: The ending of its file.
        write: Writes it to a path that is not there yet; raises what goes wrong.
    """

    matches: Callable[[Any], bool]
    called: Callable[[Any], str]
    suffix: Callable[[Any], str]
    write: Callable[[Any, Path], object]


def kind_of(value: object) -> ResultKind | None:
    """The kind of results that ``value`` is; ``None`` for any other thing."""
    try:
        return next((kind for kind in _KINDS if kind.matches(value)), None)
    except Exception:  # noqa: BLE001  # whatever a foreign thing does when it is looked at
        return None


# ── arrays and tensors ──────────────────────────────────────────────────────────────────────────

_TENSORS = {
    "tensorflow": ("EagerTensor", "BaseResourceVariable", "DistributedVariable"),
    "keras": ("Variable", "KerasVariable"),
    "torch": ("Tensor",),
    "jaxlib": ("ArrayImpl", "Array"),
}


def _is_array(value: Any) -> bool:
    return has_class(value, "ndarray", packages=("numpy",)) and bool(value.shape)


def _is_tensor(value: Any) -> bool:
    found = any(has_class(value, *names, packages=(package,)) for package, names in _TENSORS.items())
    return found and bool(len(value.shape))


def _write_array(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        imported("numpy").save(file, _to_savable_array(value), allow_pickle=False)


def _write_tensor(value: Any, path: Path) -> None:
    """Piece by piece: what is on a device, or is a variable, would be copied as a whole otherwise."""
    layout: Any = imported("numpy").lib.format
    rows = int(value.shape[0])
    first = _to_numpy(value[:1])
    header = {**layout.header_data_from_array_1_0(first), "shape": tuple(map(int, value.shape))}
    step = max(1, _CHUNK_SIZE // max(1, first.nbytes))
    with path.open("wb") as file:
        layout.write_array_header_1_0(file, {**header, "fortran_order": False})
        for start in range(0, rows, step):
            file.write(_to_numpy(value[start : start + step]).tobytes())


def _to_numpy(value: Any) -> Any:
    if has_class(value, "Tensor", packages=("torch",)):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return _to_savable_array(imported("numpy").asarray(value))


def _to_savable_array(array: Any) -> Any:
    """``array`` in a type that numpy's file format has.

    Raises:
        SaveError: There is none, or it would lose something.
    """
    if array.dtype.hasobject:
        raise SaveError(
            f"an array of Python objects can't be written without pickle (its shape is {array.shape}). "
            "Give it a type of numpy's own, as with .astype('float64') or .astype('U')."
        )
    if has_class(array, "MaskedArray", packages=("numpy",)):
        raise SaveError(
            "numpy's file format has no masks. Return the parts, .data and .mask, under two keys."
        )
    if array.dtype.kind == "V" and array.dtype.names is None and not array.dtype.name.startswith("void"):
        # bfloat16 and its like are known to no reader; float32 and int8 hold all of their values.
        return array.astype("int8" if "int" in array.dtype.name else "float32")
    return array


# ── tables, bytes ─────────────────────────────────────────────────────────────────────


def _is_table(value: object) -> bool:
    return has_class(value, "DataFrame", "Series", packages=("pandas",))


def _write_table(value: Any, path: Path) -> None:
    rows = max(1, _MAX_CELLS * len(value) // max(1, value.size))
    if len(value) > rows:
        warn(
            f"A table of {len(value):,} rows is logged as its first {rows:,} in {path.name}. To have all "
            "of it, write it to a file of your own and return its path."
        )
    index = value.index
    counted = has_class(index, "RangeIndex", packages=("pandas",)) and index.name is None
    plain = counted and (index.start, index.step) == (0, 1)
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        value.iloc[:rows].to_csv(file, index=not plain, lineterminator="\n")


def _is_hyperparameters(value: object) -> bool:
    return has_class(value, "HyperParameters", packages=("keras_tuner",))


def _write_hyperparameters(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value.values, indent=2), encoding="utf-8")


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


# ── paths ───────────────────────────────────────────────────────────────────────────────────────


def _path_suffix(value: Any) -> str:
    endings = Path(os.fspath(value)).suffixes
    return "".join(endings[-2:]) if endings[-2:-1] == [".tar"] else "".join(endings[-1:])


def _path_name(value: Any) -> str:
    return Path(os.path.abspath(os.fspath(value))).name.removesuffix(_path_suffix(value))  # noqa: PTH100


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)


def _always(text: str) -> Callable[[Any], str]:
    return lambda _: text


_KINDS = (
    ResultKind(
        _is_path, _path_name, _path_suffix, lambda value, path: copy_result(Path(os.fspath(value)), path)
    ),
    ResultKind(_is_array, _always("array"), _always(".npy"), _write_array),
    ResultKind(_is_tensor, _always("tensor"), _always(".npy"), _write_tensor),
    ResultKind(_is_table, _always("table"), _always(".csv"), _write_table),
    ResultKind(is_figure, _always("figure"), figure_suffix, write_figure),
    ResultKind(is_image, _always("image"), image_suffix, write_image),
    ResultKind(_is_hyperparameters, _always("hyperparameters"), _always(".json"), _write_hyperparameters),
    ResultKind(_is_bytes, _always("data"), _always(".bin"), lambda value, path: path.write_bytes(value)),
)
