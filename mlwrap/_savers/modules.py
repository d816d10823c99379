"""Modules that register a model's own classes: can another process import them, and may it?"""

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
    """Why importing ``value``'s module would not bring a registered class or function back, with the cure."""
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
    if module == "__main__":
        return f"it is of __main__ (a script or a notebook), which no other process has. {_HINT}"
    if "<locals>" in name:
        return f"it is made inside a function, so that importing {module} does not register it. {_HINT}"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        return f"{module}.{name} is something else by now. Save it where it was registered last."
    if _spec_of_package(module) is None:
        return f"no module {module} is on Python's path. {_HINT}"
    return None


def is_installed(module: str) -> bool:
    """Tell whether a module is of a package installed here, and not merely on Python's path.

    One that is being developed (installed as editable) is not: its files are somewhere else.
    """
    spec = _spec_of_package(module)
    places = [str(place) for place in (spec.submodule_search_locations or (spec.origin,))] if spec else []
    return bool(places) and all(_is_below(place, _packages()) for place in places)


def distribution_of(module: str) -> str | None:
    """What is to be installed to have a module, as ``keras-hub==0.20``; ``None`` if none has it."""
    top = module.partition(".")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        found = importlib.metadata.distribution(top)
        return f"{found.name}=={found.version}"
    for name in importlib.metadata.packages_distributions().get(top, ()):  # reads all that is installed
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
    """Import what registers a model's classes, before it is loaded.

    Args:
        names: Of modules; what is imported already is left alone.
        trust: Whether modules that are not of an installed package may be imported.
        is_needed: Tells whether the model names something of a module; others are not imported without
            ``trust``. By default all are needed.
        distributions: What has to be installed to have a top-level module, as far as the model tells.

    Raises:
        LoadError: One is not here, is not to be imported without ``trust``, or fails to import; or it is a
            program, which importing would run.
    """
    wanted = [name for name in names if name not in sys.modules]
    if programs := [name for name in wanted if "__main__" in name.split(".")]:
        raise LoadError(
            f"This model's MLmodel names {', '.join(programs)}, which is a program: importing it would run "
            "it. mlwrap writes no such name: load only what a training wrote."
        )
    if is_needed is not None and not trust and (idle := [name for name in wanted if not is_needed(name)]):
        raise LoadError(
            f"This model's MLmodel names the modules {', '.join(idle)}, of which the model itself has "
            "nothing. Import them yourself first, or pass trust=True if you trust where it comes from."
        )
    if absent := [name for name in wanted if _spec_of_package(name) is None]:
        known = distributions or {}
        pins = {known[top] for name in absent if (top := name.partition(".")[0]) in known}
        cure = "Install the package that it is in, or put the file on Python's path (PYTHONPATH)."
        if plain := sorted(pin for pin in pins if _PIN.fullmatch(pin)):
            cure = f"Install what the model was trained with: pip install {' '.join(plain)}"
        raise LoadError(f"This model has classes of {', '.join(absent)}, which can't be found here. {cure}")
    strange = [name for name in wanted if not is_installed(name)]
    if strange and not trust:
        raise LoadError(
            f"This model has classes of {', '.join(strange)}, which is code on Python's path and of no "
            "installed package. Import it yourself first, or pass trust=True to have that code run."
        )
    for name in wanted:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise LoadError(
                f"This model has classes of {name}, which could not be imported: {describe_error(error)}. "
                "Install what it needs."
            ) from error


def source_of(module: str) -> str:
    """The source of a module that is not imported; empty where it can't be read."""
    spec = _spec_of_package(module)
    if spec is None:
        return ""
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    inner = module.split(".")[1:]
    files = [place.joinpath(*inner, "__init__.py") for place in places]
    files += [place.joinpath(*inner).with_suffix(".py") for place in places if inner]
    files += [Path(spec.origin)] if spec.origin and not inner else []
    for file in files:
        with contextlib.suppress(OSError):
            return file.read_text(errors="replace")
    return ""


def _spec_of_package(module: str) -> ModuleSpec | None:
    """Where the package that ``module`` is in would come from; nothing is imported to tell."""
    top = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and (spec := find(top, None)) is not None:
            return spec  # type: ignore[no-any-return]  # by the protocol of finders
    return None


def _packages() -> list[Path]:
    """The folders that packages are installed in."""
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    return [Path(folder).resolve() for folder in folders]


def _is_below(place: str, folders: list[Path]) -> bool:
    return any(folder in Path(place).resolve().parents for folder in folders)
