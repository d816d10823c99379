"""Import the modules that register a model's own classes, if that is possible and allowed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from mlwrap.errors import LoadError, describe_error

_PIN = re.compile(r"[\w.-]+==[\w.!+-]+")
_HINT = "Move it to a module of its own, import it from there, and save again."


def import_problem(value: Any) -> str | None:
    """Return why an import would not restore a registered class or function, and the remedy."""
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
    if module == "__main__":
        return f"it is of __main__ (a script or a notebook), which no other process has. {_HINT}"
    if "<locals>" in name:
        return f"it is made inside a function, so that importing {module} does not register it. {_HINT}"
    symbol: Any = sys.modules.get(module)
    for part in name.split("."):
        symbol = getattr(symbol, part, None)
    if symbol is not value:
        return f"{module}.{name} is something else by now. Save it where it was registered last."
    if _spec_of_package(module) is None:
        return f"no module {module} is on Python's path. {_HINT}"
    return None


def is_installed(module: str) -> bool:
    """Return whether a module is part of an installed package, and not merely on Python's path.

    An editable install does not count, because its files are elsewhere.
    """
    spec = _spec_of_package(module)
    locations = (
        [str(location) for location in (spec.submodule_search_locations or (spec.origin,))] if spec else []
    )
    return bool(locations) and all(_is_below(location, _packages()) for location in locations)


def distribution_of(module: str) -> str | None:
    """Return the distribution to install for a module, as ``keras-hub==0.20``; ``None`` if there is none."""
    top = module.partition(".")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        distribution = importlib.metadata.distribution(top)
        return f"{distribution.name}=={distribution.version}"
    for name in importlib.metadata.packages_distributions().get(top, ()):  # reads all installed packages
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name}=={importlib.metadata.version(name)}"
    return None


def import_modules(
    names: Iterable[str],
    *,
    trust: bool,
    is_needed: Callable[[str], bool] | None = None,
    distributions: Mapping[str, str] | None = None,
) -> None:
    """Import the modules that register a model's classes, before the model is loaded.

    Args:
        names: Names of modules; those that are imported already are skipped.
        trust: Whether modules that are not part of an installed package may be imported.
        is_needed: Returns whether the model names something of a module; others are not imported without
            ``trust``. By default all are needed.
        distributions: The distributions to install, by top-level module, as far as the model says.

    Raises:
        LoadError: A module is missing, needs ``trust``, or fails to import; or it is a program, which an
            import would run.
    """
    to_import = [name for name in names if name not in sys.modules]
    if programs := [name for name in to_import if "__main__" in name.split(".")]:
        raise LoadError(
            f"This model's MLmodel names {', '.join(programs)}, which is a program: importing it would run "
            "it. mlwrap writes no such name: load only what a training wrote."
        )
    if (
        is_needed is not None
        and not trust
        and (unneeded := [name for name in to_import if not is_needed(name)])
    ):
        raise LoadError(
            f"This model's MLmodel names the modules {', '.join(unneeded)}, of which the model itself has "
            "nothing. Import them yourself first, or pass trust=True if you trust where it comes from."
        )
    if missing := [name for name in to_import if _spec_of_package(name) is None]:
        pins_by_module = distributions or {}
        pins = {pins_by_module[top] for name in missing if (top := name.partition(".")[0]) in pins_by_module}
        remedy = "Install the package that it is in, or put the file on Python's path (PYTHONPATH)."
        if valid_pins := sorted(pin for pin in pins if _PIN.fullmatch(pin)):
            remedy = f"Install what the model was trained with: pip install {' '.join(valid_pins)}"
        raise LoadError(
            f"This model has classes of {', '.join(missing)}, which can't be found here. {remedy}"
        )
    uninstalled = [name for name in to_import if not is_installed(name)]
    if uninstalled and not trust:
        raise LoadError(
            f"This model has classes of {', '.join(uninstalled)}, which is code on Python's path and of no "
            "installed package. Import it yourself first, or pass trust=True to have that code run."
        )
    for name in to_import:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise LoadError(
                f"This model has classes of {name}, which could not be imported: {describe_error(error)}. "
                "Install what it needs."
            ) from error


def source_of(module: str) -> str:
    """Return the source of a module that is not imported; an empty text if it can't be read."""
    spec = _spec_of_package(module)
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    subpackages = module.split(".")[1:]
    files = [folder.joinpath(*subpackages, "__init__.py") for folder in folders]
    files += [folder.joinpath(*subpackages).with_suffix(".py") for folder in folders if subpackages]
    files += [Path(spec.origin)] if spec.origin and not subpackages else []
    for file in files:
        with contextlib.suppress(OSError):
            return file.read_text(errors="replace")
    return ""


def _spec_of_package(module: str) -> ModuleSpec | None:
    """Return the import spec of the top-level package of ``module``, without importing anything."""
    top = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and (spec := find(top, None)) is not None:
            return spec  # type: ignore[no-any-return]  # by the protocol of finders
    return None


def _packages() -> list[Path]:
    """Return the folders that packages are installed in."""
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    return [Path(folder).resolve() for folder in folders]


def _is_below(path: str, folders: list[Path]) -> bool:
    return any(folder in Path(path).resolve().parents for folder in folders)
