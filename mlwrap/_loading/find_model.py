"""Find a logged model's files: by its URI, its run or its name in the registry."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml

from mlwrap._journal.run_models import models_of_run
from mlwrap._loading import manifest
from mlwrap._loading.cache import Cache, CacheHandle
from mlwrap._mlflow.model_files.files import local_path
from mlwrap._mlflow.model_files.mlmodel import FLAVOR, FLAVOR_FORMAT
from mlwrap._mlflow.queries import Queries, run_outputs, with_unsaved
from mlwrap.errors import LoadError, Refused, describe_error

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|(?P<alias>@.+))$")
_LOGGED = re.compile(r"models:/(?P<model_id>m-[^/@]+)$")
_OF_RUN = re.compile(r"(?:runs:/(?P<run_id>[^/]+)(?:/(?P<name>.+))?|(?P<bare>[0-9a-f]{32}))$")

_MAX_MLMODEL_BYTES = 32 << 20  # bytes; it names each file of the model
_MAX_VALUES = 1_000_000


class ModelFiles(NamedTuple):
    """A logged model's files on this machine.

    Attributes:
        folder: Where they are.
        saver: Name of the saver that wrote them.
        saver_format: Number of that saver's layout.
        details: What that saver wanted to know again.
        release: To be called when the files are not needed any more.
        modules: To be imported before it is loaded.
    """

    folder: Path
    saver: str
    saver_format: int
    details: dict[str, Any]
    release: Callable[[], None]
    modules: tuple[str, ...] = ()


def find_model(uri: str, tracking_uri: str | None, cache_bytes: int) -> ModelFiles:
    """Find a logged model's files, where they lie or else in a downloaded copy, and see that they are whole.

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, a run id, or a folder.
        tracking_uri: Where to ask; ``None`` for MLflow's own.
        cache_bytes: What downloaded copies may take; the least recently used ones are removed.

    Raises:
        LoadError: There is no such model, it is not READY, or its files are not those that were logged.
        Unreachable: The server did not answer.
    """
    held = _held(uri, tracking_uri, cache_bytes)
    try:
        ours = _flavor(held.folder, uri)
        manifest.check_manifest(held.folder, ours.manifest, uri)
    except BaseException:
        held.release()
        raise
    return ModelFiles(
        held.folder, ours.saver, ours.saver_format, ours.details or {}, held.release, ours.modules
    )


class _Flavor(msgspec.Struct, kw_only=True):
    """Our own flavor, as :func:`mlwrap._mlflow.model_files.mlmodel.write_mlmodel` writes it."""

    saver: str
    saver_format: int
    manifest: dict[str, str]
    details: dict[str, Any] | None = None
    modules: tuple[str, ...] = ()


def _flavor(folder: Path, uri: str) -> _Flavor:
    """Our own flavor in a model's ``MLmodel``."""
    path = folder / "MLmodel"
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_MLMODEL_BYTES:
            raise LoadError(
                f"{uri} has an MLmodel that is no file of at most {_MAX_MLMODEL_BYTES >> 20} MiB: it "
                "is no model."
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LoadError(f"{uri} has no MLmodel file that can be read ({error}), so it is no model.") from None
    except UnicodeDecodeError as error:
        raise LoadError(f"{uri} has an MLmodel file that is no text in UTF-8: {error}.") from None
    try:
        flavors = dict(yaml.load(text, _PlainLoader)["flavors"])  # noqa: S506 - a SafeLoader
        _require_tree(flavors)
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise LoadError(
            f"{uri} has an MLmodel file that can't be understood: {describe_error(error)}."
        ) from None
    ours = flavors.get(FLAVOR)
    if ours is None:
        others = ", ".join(sorted(flavors)) or "none"
        raise LoadError(
            f"{uri} was not logged by mlwrap; its flavors are: {others}. Load it with MLflow itself, "
            "as in mlflow.keras.load_model or mlflow.pyfunc.load_model."
        )
    layout = ours.get("format") if isinstance(ours, dict) else None
    if isinstance(layout, int) and layout > FLAVOR_FORMAT:
        raise LoadError(
            f"{uri} has format {layout} of the mlwrap flavor, and this mlwrap reads up to "
            f"{FLAVOR_FORMAT}. Upgrade mlwrap."
        )
    try:
        return msgspec.convert(ours, _Flavor)
    except (msgspec.ValidationError, RecursionError) as error:
        raise LoadError(f"{uri} has an MLmodel file whose flavor mlwrap is damaged: {error}.") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML without merged mappings, which MLflow does not write: a few lines of them take all memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError("it merges mappings ('<<')")


def _require_tree(value: Any) -> None:
    """See that something read from YAML is of a size that its text has: an alias may stand for much.

    Raises:
        ValueError: It is not.
    """
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        count += 1
        if count > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values")
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item


def _held(uri: str, tracking_uri: str | None, cache_bytes: int) -> CacheHandle:
    """Where a model's files are on this machine."""
    path = Path(uri)
    if ":/" not in uri and (path.exists() or not _OF_RUN.match(uri)):
        return CacheHandle(path, _nothing)
    client = Queries(tracking_uri)
    key, location = _place_of(client, uri)
    if local := local_path(location):
        return CacheHandle(local, _nothing)

    def download(folder: Path) -> Path:
        try:
            return client.download_files(location, folder)
        except Exception as error:
            raise LoadError(f"{uri} could not be downloaded from {location}: {error}") from error

    return Cache().get(key, download, cache_bytes)


def _nothing() -> None:
    """What lies where it was logged is not ours to let go of."""


class _Place(NamedTuple):
    """Where a model's files lie.

    Attributes:
        key: What a copy of them is kept by: the files of a LoggedModel never change once it is READY.
        location: The artifact location.
    """

    key: str
    location: str


def _finished(model: LoggedModel, uri: str) -> _Place:
    status = model.status.value
    if status == "PENDING":
        raise LoadError(
            f"{uri} is not finished: MLflow has the model {model.name!r} as PENDING. Wait for its training; "
            "if that has ended, 'mlwrap sync' delivers what waits."
        )
    if status == "FAILED":
        why = model.tags.get("mlwrap.error", "MLflow does not say why")
        raise LoadError(
            f"{uri} was never saved: the model {model.name!r} is FAILED ({why}). Load another one."
        )
    return _Place(str(model.model_id), str(model.artifact_location))


def _place_of(client: Queries, uri: str) -> _Place:
    if found := _LOGGED.match(uri):
        return _finished(_get(client, uri, found["model_id"]), uri)
    if found := _REGISTERED.match(uri):
        try:
            source = client.model_source(found["name"], found["version"] or found["alias"])
        except Refused as error:
            raise LoadError(f"{uri} is not in the registry: {error}") from error
        return _place_of(client, source)
    if found := _OF_RUN.match(uri):
        return _place_in_run(client, uri, found["run_id"] or found["bare"], found["name"])
    raise LoadError(
        f"{uri} names no model: expected models:/<id>, models:/<name>/<version>, models:/<name>@<alias>, "
        "runs:/<run id>/<model name>, a run id, or a folder."
    )


def _place_in_run(client: Queries, uri: str, run_id: str, name: str | None) -> _Place:
    """The last model of that name, or of that name and step; without a name the run's model."""
    try:
        run = client.get_run(run_id)
        models = run_outputs(client, run)
    except Refused as error:
        raise LoadError(f"{uri} can't be found: {error}") from error
    if not models and name:  # on a server without LoggedModels they are artifacts of the run
        location = f"{run.info.artifact_uri}/{name}"
        if "MLmodel" in client.uploaded_sizes(location, ""):
            return _Place(f"{run_id}-{name}".replace("/", "_"), location)
    if name is None:
        named = models_of_run(with_unsaved(client, run, models))
        if len(named) > 1:
            uris = " or ".join(f"runs:/{run_id}/{m.label}" for m in named)
            raise LoadError(f"run {run_id} has several models. Name one: {uris}.")
    else:
        named = [m for m in models if m.name == name] or [m for m in models if m.label == name]
    if not named:
        labels = ", ".join(sorted({m.label for m in models}))
        what = f"no model {name!r}; its models are: {labels or 'none'}" if name else "no model"
        raise LoadError(f"run {run_id} has {what}.")
    return _finished(named[-1].entity, uri)


def _get(client: Queries, uri: str, model_id: str) -> LoggedModel:
    try:
        return client.get_model(model_id)
    except Refused as error:
        raise LoadError(f"{uri} can't be found: {error}") from error
