"""The corpus: folders of logged models, as somebody who can write to the artifact store would lay them out.

Each has the manifest that fits its files, so that only looking into them tells what they are. What needs no
TensorFlow is in the corpus of every environment.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml

from tests.corpus.archives import (
    HOSTILE_CONFIGS,
    HOSTILE_MEMBERS,
    HOSTILE_WEIGHTS,
    archive,
    function,
    inside,
    node,
    weights,
)

Build = Callable[[Path], None]


class Case(NamedTuple):
    """A model's folder.

    Attributes:
        build: Writes it.
        trust: Whether it is refused with ``trust=True``, too.
    """

    build: Build
    trust: bool = False


def describe(folder: Path, saver: str, details: Any = None, **more: Any) -> None:
    """Write the ``MLmodel`` of a model whose files are there, with a manifest that fits them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    manifest = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    ours = {"format": 1, "saver": saver, "saver_format": 1, "manifest": manifest, "details": details or {}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"mlwrap": {**ours, **more}}}))


def keras_model(package: str, write: Callable[[Path], Any], **more: Any) -> Build:
    """A model of a Keras, whose file is written by ``write``."""

    def build(folder: Path) -> None:
        import importlib  # noqa: PLC0415  # a Keras is heavy, and may not be here

        (folder / "data").mkdir(parents=True)
        write(folder / "data" / "model.keras")
        version = importlib.import_module(package).__version__
        describe(folder, "keras", {"keras": package, "version": version}, **more)

    return build


def _large(layers: list[dict[str, Any]], shape: list[Any]) -> dict[str, Any]:
    first = node("keras.layers", "InputLayer", {"name": "i", "batch_shape": shape}, registered_name=None)
    return inside_all([first, *layers])


def inside_all(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The configuration of a model that holds layers."""
    return node("keras", "Sequential", {"name": "s", "layers": layers}, registered_name=None)


def layer(name: str, config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A layer of Keras's own."""
    return node("keras.layers", name, {"name": "x", **config}, registered_name=None, **more)


BLOATED = {
    "a wide layer": _large([layer("Dense", {"units": 26_000})], [None, 26_000]),
    "a wide layer that says what it takes": inside_all(
        [layer("Dense", {"units": 26_000}, build_config={"input_shape": [None, 26_000]})]
    ),
    "many layers": _large(
        [layer("Dense", {"units": 5_000, "name": str(n)}) for n in range(50)], [None, 5_000]
    ),
    "a large embedding": inside_all([layer("Embedding", {"input_dim": 1 << 24, "output_dim": 256})]),
    "a large recurrent layer": _large([layer("LSTM", {"units": 20_000})], [None, 5, 10]),
    "a large convolution": _large(
        [layer("Conv2D", {"filters": 9_000, "kernel_size": [9, 9]})], [None, 9, 9, 99]
    ),
    "attention": _large([layer("MultiHeadAttention", {"num_heads": 999, "key_dim": 999})], [None, 5, 999]),
    "many values at once": _large(
        [layer("Flatten", {}), layer("Dense", {"units": 99})], [None, 5_000, 5_000]
    ),
}

# More functions and classes that a configuration may name: of Keras, of installed packages, of Python.
NAMED = {
    "a starter of other code": inside(function("runpy", "run_path")),
    "an evaluator": inside(function("builtins", "exec")),
    "an importer": inside(function("importlib", "import_module")),
    "a model that is downloaded": inside(node("keras.applications", "ResNet50", registered_name=None)),
    "a function that downloads a model": inside(function("keras.applications", "ResNet50")),
    "a data set": inside(function("keras.datasets.mnist", "load_data")),
    "a switch of Keras's": inside(function("keras.config", "enable_unsafe_deserialization")),
    "a loader": inside(function("keras.saving", "load_model")),
    "a loader in a class's place": inside(node("keras.saving", "load_model", registered_name=None)),
    "a logger that writes": inside(
        node("keras.callbacks", "CSVLogger", {"filename": "x"}, registered_name=None)
    ),
    "a backup": inside(
        node("keras.callbacks", "BackupAndRestore", {"backup_dir": "x"}, registered_name=None)
    ),
    "numpy's loader": inside(function("numpy", "load")),
    "a program": inside(node("tqdm.__main__", "Main")),
    "a module of Keras's that there is not": inside(node("keras.src.nothing.here", "Dense")),
    "a name with a null": inside(node("keras.layers\0", "Dense")),
    "a lambda by its registered name": inside(node("keras.layers", "Dense", registered_name="__lambda__")),
    "a lambda as an activation": inside(
        layer(
            "Dense", {"activation": {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}}}
        )
    ),
    "words from a file": inside(layer("TextVectorization", {"vocabulary": "/etc/passwd"})),
    "numbers from a file": inside(layer("IntegerLookup", {"vocabulary": "/etc/passwd"})),
    "a class that looks like a type": inside(
        {**layer("TFSMLayer", {"filepath": "/x"}), "spec_name": "Dense"}
    ),
    "a function that looks like a value": inside(
        {"class_name": "__slice__", "module": "shutil", "registered_name": "rmtree", "config": {}}
    ),
    "a name with a dot": inside(
        {**node("keras.src.saving", "saving_lib.load_model"), "registered_name": "Dense"}
    ),
    "a type of another module": inside(
        {
            "class_name": "__typespec__",
            "spec_name": "system",
            "module": "os",
            "config": [],
            "registered_name": None,
        }
    ),
    "a loss that runs": {
        **inside(layer("Flatten", {})),
        "compile_config": {"optimizer": "adam", "loss": function("os", "system")},
    },
    "a metric that runs": {
        **inside(layer("Flatten", {})),
        "compile_config": {"metrics": [[function("subprocess", "run")]]},
    },
    "inside of a wrapper": inside(layer("TimeDistributed", {"layer": node("os", "Popen")})),
    "inside of a quantizer": inside(layer("Dense", {"quantization_config": node("os", "Popen")})),
    "inside of a policy of types": inside(layer("Dense", {"dtype": node("os", "Popen")})),
    "inside of a build": inside({**layer("Dense", {"units": 1}), "build_config": node("os", "Popen")}),
}

# Functions and classes that layers of Keras 2 call.
_FUNCTIONS = """
compat.v1.write_file io.write_file compat.v1.io.write_file io.read_file read_file compat.v1.read_file
load_op_library load_library compat.v1.load_op_library py_function compat.v1.py_func numpy_function print
compat.v1.Print io.matching_files raw_ops.WriteFile raw_ops.PyFunc saved_model.load saved_model.save
keras.utils.get_file keras.models.load_model data.Dataset.list_files io.gfile.remove io.gfile.copy
compat.v1.gfile.DeleteRecursively random.fixed_unigram_candidate_sampler train.load_checkpoint
summary.create_file_writer config.experimental_connect_to_host
debugging.experimental.enable_dump_debug_info keras.backend.clear_session nothing.of.the.kind
"""
CALLED = {
    "TFOpLambda": _FUNCTIONS.split(),
    "SlicingOpLambda": ["io.write_file", "compat.v1.write_file", "load_op_library"],
}
OTHER_CALLS = {
    "ClassMethod": {"cls_symbol": "data.TFRecordDataset", "method_name": "from_tensors"},
    "InstanceProperty": {"attr_name": "__class__"},
    "InstanceMethod": {"method_name": "__reduce__"},
    "KerasOpDispatcher": {},
}


def _with(**options: Any) -> Callable[[Path], Path]:
    return lambda file: archive(file, **options)


def _members(*extra: Any) -> Callable[[Path], Path]:
    return lambda file: archive(file, *extra)


def _many_lengths(file: Any) -> None:
    kind = h5py.vlen_dtype(np.dtype("float32"))
    values = file.create_dataset("layers/x", (100,), dtype=kind)
    values[0] = np.ones(1000, "float32")


def _references(file: Any) -> None:
    values = file.create_dataset("layers/x", (2,), dtype=h5py.ref_dtype)
    values[0] = file.ref


def _many_texts(file: Any) -> None:
    file.attrs.create("layer_names", ["x"] * 20_000, dtype=h5py.string_dtype())


ENDLESS_WEIGHTS = {
    "arrays of any length": _many_lengths,
    "texts of any length": lambda f: f.create_dataset("layers/x", data=["a"] * 3, dtype=h5py.string_dtype()),
    "references": _references,
    "an attribute of many texts": _many_texts,
}


def _good(file: Path) -> Path:
    return archive(file, config=inside(layer("Flatten", {})))


def _text(text: str | bytes) -> Build:
    def build(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "MLmodel").write_bytes(text if isinstance(text, bytes) else text.encode())

    return build


_OURS = "flavors: {mlwrap: {format: 1, saver: keras, saver_format: 1, manifest: {}, details: %s}}\n"
_ANCHORS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12))
_MERGES = "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" if n else "a0: &a0 {x: 1}\n" for n in range(30)
)
MLMODELS = {
    "deep": "[" * 5_000,
    "deep and whole": _OURS % ("[" * 5_000 + "]" * 5_000),
    "deep mappings": _OURS % ("{a: " * 3_000 + "1" + "}" * 3_000),
    "no text": b"flavors: \xff\xfe\x00",
    "null": b"\0",
    "empty": "",
    "a list": "[]",
    "no flavors": "a: 1",
    "flavors that are none": "flavors: 3",
    "another flavor": "flavors: {sklearn: {}}",
    "an object": "flavors: !!python/object/apply:os.system [id]",
    "a module": _OURS % "!!python/name:os.system ''",
    "aliases upon aliases": f"{_ANCHORS}{_OURS % '{a: *a11}'}",
    "merges upon merges": f"{_MERGES}{_OURS % '{a: *a29}'}",
    "itself": f"x: &x [*x]\n{_OURS % '{a: *x}'}",
    "a long number": _OURS % ("{version: " + "9" * 5_000 + "}"),
    "a newer format": "flavors: {mlwrap: {format: 99, saver: keras, saver_format: 1, manifest: {}}}",
    "no saver": "flavors: {mlwrap: {format: 1, saver_format: 1, manifest: {}}}",
    "a manifest that is none": "flavors: {mlwrap: {format: 1, saver: keras, saver_format: 1, manifest: []}}",
    "another saver": "flavors: {mlwrap: {format: 1, saver: os, saver_format: 1, manifest: {}}}",
    "a file outside": "flavors: {mlwrap: {format: 1, saver: keras, saver_format: 1, manifest: {../x: y}}}",
    "details without a Keras": _OURS % "{}",
    "details of another Keras": _OURS % "{keras: antigravity, version: '3.0'}",
    "a version that is none": _OURS % "{keras: keras, version: [1]}",
}


def _linked(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "MLmodel").symlink_to("/etc/passwd")


def _checkpoint_outside(folder: Path) -> None:
    folder.mkdir(parents=True)
    describe(folder, "estimator", {"checkpoint": "../../secret"})


def hdf5_model(write: Callable[[Any], None] | None, saver: str) -> Build:
    """A whole model, or weights, in HDF5."""

    def build(folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        name = "model.h5" if saver == "keras_hdf5" else "model.weights.h5"
        (folder / "data" / name).write_bytes(weights(write))
        describe(folder, saver, {"keras": "keras", "version": "3.0", "weights": f"data/{name}"})

    return build


def modules(*names: str) -> Build:
    """A good model whose description names modules to import."""
    return keras_model("keras", _good, modules=list(names))


def corpus() -> dict[str, Case]:
    """All of it that needs no graphs of TensorFlow's, by name."""
    cases: dict[str, Case] = {}
    for name, (extra, _) in HOSTILE_MEMBERS.items():
        cases[f"member: {name}"] = Case(keras_model("keras", _members(extra)), trust=True)
    for name, write in {**{n: w for n, (w, _) in HOSTILE_WEIGHTS.items()}, **ENDLESS_WEIGHTS}.items():
        cases[f"weights: {name}"] = Case(keras_model("keras", _with(h5=weights(write))), trust=True)
        cases[f"weights in HDF5: {name}"] = Case(hdf5_model(write, "keras_weights"), trust=True)
    for package in ("keras", "tf_keras"):
        if find_spec(package) is None:
            continue
        for name, config in {**{n: c for n, (c, _) in HOSTILE_CONFIGS.items()}, **NAMED}.items():
            cases[f"{package}: {name}"] = Case(keras_model(package, _with(config=config)))
        for name, config in BLOATED.items():
            cases[f"{package}: {name}"] = Case(keras_model(package, _with(config=config)), trust=True)
        cases |= _of_keras_2(package)
    for name, text in MLMODELS.items():
        cases[f"MLmodel: {name}"] = Case(_text(text), trust=True)
    cases["MLmodel: a link"] = Case(_linked, trust=True)
    cases["checkpoint outside"] = Case(_checkpoint_outside, trust=True)
    cases["HDF5: a model"] = Case(hdf5_model(None, "keras_hdf5"))
    for name in ("tqdm.__main__", "flask.__main__", "pygments.__main__", "pip.__main__", "__main__.x"):
        cases[f"modules: {name}"] = Case(modules(name), trust=True)
    for name in (
        "antigravity",
        "this",
        "mlflow.cli",
        "werkzeug.debug.console",
        "../x",
        "nothing_of_the_kind",
    ):
        cases[f"modules: {name}"] = Case(modules(name))
    return cases


def _of_keras_2(package: str) -> dict[str, Case]:
    """Layers that call TensorFlow by name. Keras 3 knows none of them."""
    cases = {}
    homes = {"keras.layers": "", "keras.src.layers.core.tf_op_layer": " by its module"}
    for kind, names in CALLED.items():
        for name in names:
            config = layer(kind, {"function": name})
            config["module"] = "keras.src.layers.core.tf_op_layer"
            cases[f"{package}: {kind} {name}"] = Case(keras_model(package, _with(config=inside(config))))
    for kind, options in OTHER_CALLS.items():
        for module, where in homes.items():
            config = {**layer(kind, options), "module": module}
            cases[f"{package}: {kind}{where}"] = Case(keras_model(package, _with(config=inside(config))))
    hidden = {**layer("X", {"function": "io.write_file"}), "registered_name": "SlicingOpLambda"}
    hidden["module"] = "keras.src.layers.core.tf_op_layer"
    cases[f"{package}: a layer under another name"] = Case(keras_model(package, _with(config=inside(hidden))))
    raw = layer("TensorFlowOpLayer", {"node_def": {"name": "w", "op": "WriteFile"}})
    raw["module"] = "keras.src.engine.base_layer"
    cases[f"{package}: an operation"] = Case(keras_model(package, _with(config=inside(raw))))
    return cases


def _npz(arrays: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return out.getvalue()


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


_META = np.frombuffer(json.dumps({"kind": "array", "inputs": [""], "predicted": None}).encode(), "uint8")
_SMALL = _npy(np.zeros(4, "float32"))


class _Runs:
    def __reduce__(self):
        return (print, ("this ran",))


EXAMPLES = {
    "a bomb": _npz({"meta": _npy(_META), "input-0": _npy(np.zeros(1 << 24))}, zipfile.ZIP_DEFLATED),
    "a pickle": pickle.dumps(_Runs()),
    "a pickle in an array": _npz({"meta": _npy(_META), "input-0": _npy(np.array([_Runs()], object))}),
    "a shape that is not there": _npz(
        {"meta": _npy(_META), "input-0": _SMALL.replace(b"(4,), }             ", b"(4000000000000,), } ")}
    ),
    "nothing of the kind": b"PK",
    "no description": _npz({"input-0": _SMALL}),
    "a description that is none": _npz({"meta": _npy(np.zeros(3, "uint8")), "input-0": _SMALL}),
    "no inputs": _npz({"meta": _npy(_META)}),
}
