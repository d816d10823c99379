"""Store a model's input example in a form that needs neither MLflow nor a framework, and no pickle."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlwrap.errors import LoadError, describe_error

EXAMPLE_FILE = "mlwrap-example.npz"


class _Meta(msgspec.Struct, kw_only=True):
    kind: Literal["array", "mapping", "frame"]
    inputs: tuple[str, ...]
    predicted: tuple[str, ...] | None


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """An input example of a model, and the model's prediction for it.

    Attributes:
        kind: The form of the user's input: an array, a mapping of names to arrays, or a pandas frame.
        inputs: Arrays by name; by column for a frame, under the empty name for an array. No array holds
            Python objects.
        predicted: Arrays by name that the model predicted before it was saved; ``None`` if it was not run.
    """

    kind: Literal["array", "mapping", "frame"]
    inputs: Mapping[str, Any]
    predicted: Mapping[str, Any] | None = None

    def value(self) -> Any:
        """Return the example in the user's form: a numpy array, a dict of them, or a ``pandas.DataFrame``."""
        if self.kind == "array":
            return next(iter(self.inputs.values()))
        if self.kind == "mapping":
            return dict(self.inputs)
        import pandas as pd  # noqa: PLC0415 - only needed for a frame

        return pd.DataFrame(dict(self.inputs))

    def write(self, folder: Path) -> None:
        """Write the example into a model's folder."""
        import numpy as np  # noqa: PLC0415 - only needed for an example

        predicted = None if self.predicted is None else tuple(self.predicted)
        meta = msgspec.json.encode(_Meta(kind=self.kind, inputs=tuple(self.inputs), predicted=predicted))
        arrays = {f"input-{n}": array for n, array in enumerate(self.inputs.values())}
        arrays |= {f"predicted-{n}": array for n, array in enumerate((self.predicted or {}).values())}
        np.savez(folder / EXAMPLE_FILE, meta=np.frombuffer(meta, "uint8"), **arrays)

    @classmethod
    def read(cls, folder: Path) -> Example | None:
        """Read the example from a model's folder; return ``None`` if the folder has none.

        Raises:
            LoadError: The file is not in the form of :meth:`write`: an array is compressed or pickled, or
                claims to be larger than its file.
        """
        if not (folder / EXAMPLE_FILE).is_file():
            return None
        try:
            return cls._read(folder / EXAMPLE_FILE)
        except Exception as error:  # the file is untrusted: reading it can raise anything
            raise LoadError(
                f"The model's example {folder / EXAMPLE_FILE} can't be read: {describe_error(error)}. Load "
                "only what a training wrote; if this is, download it again."
            ) from error

    @classmethod
    def _read(cls, file: Path) -> Example:
        import numpy as np  # noqa: PLC0415 - only needed for an example

        with zipfile.ZipFile(file) as members:
            for member in members.infolist():
                _require_stored(members, member)
        with np.load(file, allow_pickle=False) as arrays:
            meta = msgspec.json.decode(arrays["meta"].tobytes(), type=_Meta)
            inputs = {name: arrays[f"input-{n}"] for n, name in enumerate(meta.inputs)}
            predicted = (
                None
                if meta.predicted is None
                else {name: arrays[f"predicted-{n}"] for n, name in enumerate(meta.predicted)}
            )
        return cls(kind=meta.kind, inputs=inputs, predicted=predicted)


def _require_stored(members: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array is stored uncompressed and fits its file; read only the array's header.

    Raises:
        ValueError: The array is compressed, holds Python objects, or claims more bytes than its file has.
    """
    from numpy.lib import format as npy  # noqa: PLC0415 - only needed for an example

    file_size = Path(str(members.filename)).stat().st_size
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > file_size:
        raise ValueError(f"expected arrays as they are, got {member.filename!r} compressed")
    with members.open(member) as file:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[
            npy.read_magic(file)
        ]
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"expected an array, got a pickle in {member.filename!r}")
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename!r} says that it is larger than it is")
