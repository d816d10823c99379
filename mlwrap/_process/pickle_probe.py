"""Find out whether a value can be pickled for another process."""

from __future__ import annotations

from typing import Any


class _NullWriter:
    """A file that discards what is written."""

    def write(self, data: Any) -> int:
        return len(data)


def pickling_error(value: Any, pickler: Any = None) -> Exception | None:
    """Return why a value can't be pickled; ``None`` if it can. Large arrays are not copied for the check.

    Args:
        value: The value.
        pickler: A pickler class of pickle protocol 5; by default cloudpickle's, which loky, Dask and Ray use.
    """
    if pickler is None:
        import cloudpickle  # noqa: PLC0415 - only needed for pickling by value

        pickler = cloudpickle.CloudPickler
    try:
        pickler(_NullWriter(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as error:  # noqa: BLE001 - any user's __reduce__ may raise anything
        return error
    return None
