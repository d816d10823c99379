"""Find a logged model's files: by URI, by run, or by name in the registry."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml

from mlwrap._journal.final_models import models_of_run
from mlwrap._journal.tags import TagName
from mlwrap._loading import manifest
from mlwrap._loading.cache import Cache, CacheHandle
from mlwrap._mlflow.model_files.files import local_path
from mlwrap._mlflow.model_files.mlmodel import FLAVOR, FLAVOR_FORMAT
from mlwrap._mlflow.queries import Queries, run_outputs, with_unsaved
from mlwrap.errors import LoadError, Refused, describe_error

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_REGISTERED_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|(?P<alias>@.+))$")
_LOGGED_URI = re.compile(r"models:/(?P<model_id>m-[^/@]+)$")
_RUN_URI = re.compile(r"(?:runs:/(?P<run_id>[^/]+)(?:/(?P<name>.+))?|(?P<bare>[0-9a-f]{32}))$")

_MAX_MLMODEL_BYTES = 32 << 20  # it lists each file of the model
_MAX_VALUES = 1_000_000


class ModelFiles(NamedTuple):
    """A logged model's files on this machine.

    Attributes:
        folder: Their folder.
        saver: Name of the saver that wrote them.
        saver_format: Version of that saver's format.
        details: What the saver recorded for loading.
        release: Call it when the files are no longer needed.
        modules: Modules to import before loading.
    """

    folder: Path
    saver: str
    saver_format: int
    details: dict[str, Any]
    release: Callable[[], None]
    modules: tuple[str, ...] = ()


def find_model(uri: str, tracking_uri: str | None, cache_bytes: int) -> ModelFiles:
    """Find a logged model's files, in place or as a downloaded copy, and verify them by their manifest.

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, a run id, or a folder.
        tracking_uri: URI of MLflow; ``None`` for MLflow's own choice.
        cache_bytes: Maximum size of all downloaded copies; the least recently used ones are removed.

    Raises:
        LoadError: No such model exists, it is not READY, or its files differ from the logged ones.
        Unreachable: The server did not answer.
    """
    handle = _locate(uri, tracking_uri, cache_bytes)
    try:
        flavor = _flavor(handle.folder, uri)
        manifest.check_manifest(handle.folder, flavor.manifest, uri)
    except BaseException:
        handle.release()
        raise
    return ModelFiles(
        handle.folder, flavor.saver, flavor.saver_format, flavor.details or {}, handle.release, flavor.modules
    )


class _Flavor(msgspec.Struct, kw_only=True):
    """mlwrap's own flavor, as :func:`mlwrap._mlflow.model_files.mlmodel.write_mlmodel` writes it."""

    saver: str
    saver_format: int
    manifest: dict[str, str]
    details: dict[str, Any] | None = None
    modules: tuple[str, ...] = ()


def _flavor(folder: Path, uri: str) -> _Flavor:
    """Read mlwrap's own flavor from a model's ``MLmodel``."""
    path = folder / "MLmodel"
    try:
        file_status = path.lstat()
        if not stat.S_ISREG(file_status.st_mode) or file_status.st_size > _MAX_MLMODEL_BYTES:
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
    flavor = flavors.get(FLAVOR)
    if flavor is None:
        others = ", ".join(sorted(flavors)) or "none"
        raise LoadError(
            f"{uri} was not logged by mlwrap; its flavors are: {others}. Load it with MLflow itself, "
            "as in mlflow.keras.load_model or mlflow.pyfunc.load_model."
        )
    layout = flavor.get("format") if isinstance(flavor, dict) else None
    if isinstance(layout, int) and layout > FLAVOR_FORMAT:
        raise LoadError(
            f"{uri} has format {layout} of the mlwrap flavor, and this mlwrap reads up to "
            f"{FLAVOR_FORMAT}. Upgrade mlwrap."
        )
    try:
        return msgspec.convert(flavor, _Flavor)
    except (msgspec.ValidationError, RecursionError) as error:
        raise LoadError(f"{uri} has an MLmodel file whose flavor mlwrap is damaged: {error}.") from None


class _PlainLoader(yaml.SafeLoader):
    """Load YAML without merged mappings: MLflow does not write them, and a few lines can exhaust memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError("it merges mappings ('<<')")


def _require_tree(value: Any) -> None:
    """Check that a value read from YAML is no larger than its text, as aliases could make it.

    Raises:
        ValueError: It has too many values.
    """
    pending, count = [value], 0
    while pending:
        item = pending.pop()
        count += 1
        if count > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values")
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item


def _locate(uri: str, tracking_uri: str | None, cache_bytes: int) -> CacheHandle:
    """Return a handle to a model's files on this machine, downloading them if necessary."""
    path = Path(uri)
    if ":/" not in uri and (path.exists() or not _RUN_URI.match(uri)):
        return CacheHandle(path, _release_nothing)
    client = Queries(tracking_uri)
    key, location = _locate_uri(client, uri)
    if local := local_path(location):
        return CacheHandle(local, _release_nothing)

    def download(folder: Path) -> Path:
        try:
            return client.download_files(location, folder)
        except Exception as error:
            raise LoadError(f"{uri} could not be downloaded from {location}: {error}") from error

    return Cache().get(key, download, cache_bytes)


def _release_nothing() -> None:
    """Release nothing: files in place are not a copy in the cache."""


class _ModelLocation(NamedTuple):
    """The location of a model's files.

    Attributes:
        key: Name of their copy in the cache: a LoggedModel's files never change once it is READY.
        location: The artifact location.
    """

    key: str
    location: str


def _require_ready(model: LoggedModel, uri: str) -> _ModelLocation:
    status = model.status.value
    if status == "PENDING":
        raise LoadError(
            f"{uri} is not finished: MLflow has the model {model.name!r} as PENDING. Wait for its training; "
            "if that has ended, 'mlwrap sync' delivers what waits."
        )
    if status == "FAILED":
        why = model.tags.get(TagName.ERROR, "MLflow does not say why")
        raise LoadError(
            f"{uri} was never saved: the model {model.name!r} is FAILED ({why}). Load another one."
        )
    return _ModelLocation(str(model.model_id), str(model.artifact_location))


def _locate_uri(client: Queries, uri: str) -> _ModelLocation:
    if match := _LOGGED_URI.match(uri):
        return _require_ready(_get(client, uri, match["model_id"]), uri)
    if match := _REGISTERED_URI.match(uri):
        try:
            version = client.model_version(match["name"], match["version"] or match["alias"])
        except Refused as error:
            raise LoadError(f"{uri} is not in the registry: {error}") from error
        source = str(version.source)
        if _LOGGED_URI.match(source) or _RUN_URI.match(source):
            return _locate_uri(client, source)
        # Registered from an artifact location, by an older MLflow or by hand.
        digest = hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
        return _ModelLocation(f"{version.name}-{version.version}-{digest}", source)
    if match := _RUN_URI.match(uri):
        return _locate_in_run(client, uri, match["run_id"] or match["bare"], match["name"])
    raise LoadError(
        f"{uri} names no model: expected models:/<id>, models:/<name>/<version>, models:/<name>@<alias>, "
        "runs:/<run id>/<model name>, a run id, or a folder."
    )


def _locate_in_run(client: Queries, uri: str, run_id: str, name: str | None) -> _ModelLocation:
    """Return the last model of that name, or of that name and step; without a name the run's model."""
    try:
        run = client.get_run(run_id)
        models = run_outputs(client, run)
    except Refused as error:
        raise LoadError(f"{uri} can't be found: {error}") from error
    if name is None:
        named = models_of_run(with_unsaved(client, run, models))
        if len(named) > 1:
            uris = " or ".join(f"runs:/{run_id}/{m.label}" for m in named)
            raise LoadError(f"run {run_id} has several models. Name one: {uris}.")
    else:
        named = [m for m in models if m.name == name] or [m for m in models if m.label == name]
    if not named and name:  # on a server without LoggedModels it is an artifact of the run
        location = f"{run.info.artifact_uri}/{name}"
        if "MLmodel" in client.uploaded_sizes(location, ""):
            return _ModelLocation(f"{run_id}-{name}".replace("/", "_"), location)
    if not named:
        labels = ", ".join(sorted({m.label for m in models}))
        problem = f"no model {name!r}; its models are: {labels or 'none'}" if name else "no model"
        raise LoadError(f"run {run_id} has {problem}.")
    return _require_ready(named[-1].entity, uri)


def _get(client: Queries, uri: str, model_id: str) -> LoggedModel:
    try:
        return client.get_model(model_id)
    except Refused as error:
        raise LoadError(f"{uri} can't be found: {error}") from error
