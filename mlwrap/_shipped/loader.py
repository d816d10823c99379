"""Copy mlwrap's loader into models that MLflow's own loaders can't feed, and recognize it again.

::

    code/mlwrap_loader_1.py  a copy of mlwrap/_shipped/pyfunc_loader.py

MLflow puts the folder ``code`` on Python's path. The file's name has a number, so that models written by
two versions of mlwrap and loaded by one process do not share a loader. Where MLflow reads the model in its
store, as on a local disk, Python writes the file's bytecode beside it, into ``code/__pycache__``.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

_CODE = "code"  # MLflow's own name for it
_NAME = "mlwrap_loader_1"
_SOURCE = Path(__file__).with_name("pyfunc_loader.py")


def ship_loader(folder: Path, data: str, signature: str | None = None) -> dict[str, Any]:
    """Copy the loader into a logged model.

    Args:
        folder: The model's folder.
        data: The model's SavedModel or ``.keras`` file, relative to ``folder``.
        signature: For a SavedModel, the name of the signature to serve.

    Returns:
        The configuration of MLflow's generic flavor.
    """
    target = folder / _CODE / f"{_NAME}.py"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(_SOURCE.read_bytes())
    config = {"signature": signature} if signature is not None else {"framework": "keras"}
    return {"loader_module": _NAME, "data": data, "code": _CODE, "model_config": config}


def is_shipped(folder: Path, pyfunc: Mapping[str, Any]) -> bool:
    """Return whether the only code in a logged model is this loader, byte for byte, beside its bytecode."""
    if (pyfunc.get("code"), pyfunc.get("loader_module")) != (_CODE, _NAME):
        return False
    loader = folder / _CODE / f"{_NAME}.py"
    names = {path.relative_to(folder).as_posix() for path in loader.parent.rglob("*") if not path.is_dir()}
    source = f"{_CODE}/{_NAME}.py"
    return (
        {name for name in names if not is_bytecode(name, {source})} == {source}
        and not loader.is_symlink()
        and loader.read_bytes() == _SOURCE.read_bytes()
    )


def import_own_loader() -> None:
    """Import mlwrap's own copy under the name that MLflow imports: a model's bytecode may be anything."""
    from mlwrap._shipped import pyfunc_loader  # noqa: PLC0415 - imports NumPy

    sys.modules.setdefault(_NAME, pyfunc_loader)


def is_bytecode(name: str, sources: Collection[str]) -> bool:
    """Return whether a file is what Python writes beside a source file that it has imported.

    Args:
        name: The file, relative to a model's folder.
        sources: The files that were logged, in the same form.
    """
    path = PurePosixPath(name)
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path.parent.name == "__pycache__" and path.suffix == ".pyc" and str(source) in sources
