"""Result kinds: returned values that are neither models nor numbers, and the file that each is saved as.

===============  ==================  ===============================================================
kind             file                how
===============  ==================  ===============================================================
path             its own ending      a copy, of regular files only
array            ``.npy``            numpy's, without pickle
tensor           ``.npy``            the same, in chunks
table            ``.csv``            a pandas frame or series, row by row
figure           ``.png``, ``.html`` see :mod:`mlwrap._savers.figures`
image            ``.png``            of Pillow; ``.tiff`` where PNG has no such pixels
hyperparameters  ``.json``           of KerasTuner: names and values
data             ``.bin``            bytes as they are
===============  ==================  ===============================================================

Identifying a value imports nothing, and writing one never holds a second copy of it in memory.
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

_CHUNK_SIZE = 1 << 24  # bytes of a tensor that are copied at a time
_MAX_CELLS = 5_000_000  # of a table; writing them takes about ten seconds


class Output(NamedTuple):
    """A value that is to be logged as an artifact.

    Attributes:
        path: The artifact path.
        content: The text, or a function that writes the file or folder to the path that it is given.
    """

    path: str
    content: str | Callable[[Path], object]


class ResultKind(NamedTuple):
    """A kind of result.

    Attributes:
        matches: Returns whether a value is of this kind.
        called: Returns the name of a value that has no key.
        suffix: Returns the suffix of its file.
        write: Writes the value to a path that does not exist yet; may raise any error.
    """

    matches: Callable[[Any], bool]
    called: Callable[[Any], str]
    suffix: Callable[[Any], str]
    write: Callable[[Any, Path], object]


def kind_of(value: object) -> ResultKind | None:
    """Return the kind of result that ``value`` is; ``None`` if it is none."""
    try:
        return next((kind for kind in _KINDS if kind.matches(value)), None)
    except Exception:  # noqa: BLE001  # a foreign object may raise anything when it is inspected
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
    matches = any(has_class(value, *names, packages=(package,)) for package, names in _TENSORS.items())
    return matches and bool(len(value.shape))


def _write_array(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        imported("numpy").save(file, _to_savable_array(value), allow_pickle=False)


def _write_tensor(value: Any, path: Path) -> None:
    """Write a tensor in chunks: converting a variable or a device's tensor at once would copy all of it."""
    layout: Any = imported("numpy").lib.format
    rows = int(value.shape[0])
    first_row = _to_numpy(value[:1])
    header = {**layout.header_data_from_array_1_0(first_row), "shape": tuple(map(int, value.shape))}
    chunk_rows = max(1, _CHUNK_SIZE // max(1, first_row.nbytes))
    with path.open("wb") as file:
        layout.write_array_header_1_0(file, {**header, "fortran_order": False})
        for start in range(0, rows, chunk_rows):
            file.write(_to_numpy(value[start : start + chunk_rows]).tobytes())


def _to_numpy(value: Any) -> Any:
    if has_class(value, "Tensor", packages=("torch",)):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return _to_savable_array(imported("numpy").asarray(value))


def _to_savable_array(array: Any) -> Any:
    """Return ``array`` in a type that numpy's file format supports.

    Raises:
        SaveError: No such type exists, or the conversion would lose data.
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
        # No reader knows bfloat16 and similar types; float32 and int8 hold all of their values.
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
    is_unnamed_range = has_class(index, "RangeIndex", packages=("pandas",)) and index.name is None
    is_default_index = is_unnamed_range and (index.start, index.step) == (0, 1)
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        value.iloc[:rows].to_csv(file, index=not is_default_index, lineterminator="\n")


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


def _constant(text: str) -> Callable[[Any], str]:
    return lambda _: text


_KINDS = (
    ResultKind(
        _is_path, _path_name, _path_suffix, lambda value, path: copy_result(Path(os.fspath(value)), path)
    ),
    ResultKind(_is_array, _constant("array"), _constant(".npy"), _write_array),
    ResultKind(_is_tensor, _constant("tensor"), _constant(".npy"), _write_tensor),
    ResultKind(_is_table, _constant("table"), _constant(".csv"), _write_table),
    ResultKind(is_figure, _constant("figure"), figure_suffix, write_figure),
    ResultKind(is_image, _constant("image"), image_suffix, write_image),
    ResultKind(_is_hyperparameters, _constant("hyperparameters"), _constant(".json"), _write_hyperparameters),
    ResultKind(_is_bytes, _constant("data"), _constant(".bin"), lambda value, path: path.write_bytes(value)),
)
