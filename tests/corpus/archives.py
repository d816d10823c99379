"""Hostile ``.keras`` and HDF5 files: their members, their weights, their configurations.

Each entry says what its refusal names.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path

import h5py
import numpy as np


def weights(write=None) -> bytes:
    """An HDF5 file with one array, and what ``write`` adds."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        file["layers/dense/vars/0"] = np.ones((4, 2), "float32")
        if write is not None:
            write(file)
    return buffer.getvalue()


def archive(
    path: Path, *extra: tuple[str | zipfile.ZipInfo, bytes], config=None, h5: bytes | None = None
) -> Path:
    """A ``.keras`` file, with members besides."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", '{"keras_version": "3.10.0"}')
        file.writestr("config.json", json.dumps(config or {}))
        file.writestr("model.weights.h5", weights() if h5 is None else h5)
        for name, content in extra:
            file.writestr(name, content)
    return path


def member(name: str, mode: int = stat.S_IFREG, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    """A member of some kind."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    info.compress_type = compression
    return info


HOSTILE_MEMBERS = {
    "leads out": (("assets/../../evil.txt", b"x"), "leads out of the folder"),
    "absolute": (("/etc/evil", b"x"), "absolute name"),
    "absolute elsewhere": (("C:/evil", b"x"), "absolute name"),
    "backslashes": (("assets\\..\\evil", b"x"), "absolute name"),
    "a link": ((member("assets/link", stat.S_IFLNK), b"/etc/passwd"), "is a link"),
    "a device": ((member("assets/tty", stat.S_IFCHR), b""), "special file"),
    "a bomb": ((member("assets/zeros", compression=zipfile.ZIP_DEFLATED), bytes(1 << 20)), "is compressed"),
    "a pickle": (("model.pkl", b"x"), "nothing that Keras writes"),
    "twice": (("config.json", b"{}"), "in it twice"),
}


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource("/etc/elsewhere.h5", "x", shape=(4,))
    file.create_virtual_dataset("layers/dense/vars/1", layout)


def _named_type(file) -> None:
    file["layers/kind"] = np.dtype("float32")


HOSTILE_WEIGHTS = {
    "external link": (
        lambda f: f.__setitem__("layers/x", h5py.ExternalLink("/etc/x.h5", "/")),
        "leads elsewhere",
    ),
    "soft link": (lambda f: f.__setitem__("layers/x", h5py.SoftLink("/layers/dense")), "leads elsewhere"),
    "external storage": (
        lambda f: f.create_dataset("layers/x", (4,), "uint8", external=[("/etc/passwd", 0, 4)]),
        "kept in another file",
    ),
    "virtual": (_virtual, "put together from other files"),
    "shape bomb": (
        lambda f: f.create_dataset("layers/x", (1 << 40,), "float32", chunks=(1 << 10,), compression="gzip"),
        "bytes in memory",
    ),
    "a type": (_named_type, "neither a group nor a dataset"),
}


def node(module, name, config=None, **more):
    """One object of a configuration."""
    return {"module": module, "class_name": name, "config": config or {}, "registered_name": name, **more}


def inside(layer):
    """The configuration of a model that holds a layer."""
    return node("keras", "Sequential", {"name": "s", "layers": [layer]}, registered_name=None)


def function(module, name):
    """A layer that applies a function of some module."""
    named = node(module, "function", name, registered_name=name)
    return node("keras.layers", "Activation", {"name": "a", "activation": named}, registered_name=None)


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
HOSTILE_CONFIGS = {
    "os.system": (inside(function("os", "system")), "os.system"),
    "a builtin": (inside(function("builtins", "eval")), "needs eval"),
    "a class of any module": (inside(node("subprocess", "Popen", {"args": "id"})), "subprocess.Popen"),
    "a module to import": (inside(node("antigravity", "Fly")), "antigravity.Fly"),
    "a function in a class's place": (inside(node("shutil", "rmtree")), "shutil.rmtree"),
    "a download": (inside(function("keras.utils", "get_file")), "keras.utils.get_file"),
    "a download in a class's place": (inside(node("keras.utils", "get_file")), "keras.utils.get_file"),
    "a lambda": (inside(node("keras.layers", "Lambda", {"name": "l", "function": LAMBDA})), "trust=True"),
    "a lambda of Keras 2": (
        inside(
            node("keras.layers", "Lambda", {"name": "l", "function": ["4w=="], "function_type": "lambda"})
        ),
        "trust=True",
    ),
    "a pickle": (
        inside(node("keras.layers", "TorchModuleWrapper", {"name": "t", "module": "gASV"})),
        "pickled|needs keras.layers.TorchModuleWrapper",
    ),
    "another model": (
        inside(node("keras.layers", "TFSMLayer", {"name": "t", "filepath": "/tmp/evil"})),
        "loads a SavedModel from a path|needs keras.layers.TFSMLayer",
    ),
    "a file to read": (
        inside(node("keras.layers", "StringLookup", {"name": "l", "vocabulary": "/etc/passwd"})),
        "reads its vocabulary from '/etc/passwd'",
    ),
    "a file to write": (
        inside(
            node(
                "keras.src.layers.core.tf_op_layer", "TFOpLambda", {"name": "w", "function": "io.write_file"}
            )
        ),
        "'io.write_file'|needs .*TFOpLambda",
    ),
    "a function that runs code": (
        inside(
            node(
                "keras.src.layers.core.tf_op_layer",
                "X",
                {"function": "py_function"},
                registered_name="TFOpLambda",
            )
        ),
        "'py_function'|needs .*TFOpLambda",
    ),
    "a method that runs code": (
        inside(node("keras.src.layers.core.tf_op_layer", "ClassMethod", {"cls_symbol": "data.Dataset"})),
        "'data.Dataset|needs .*ClassMethod",
    ),
    "what Keras itself imported": (
        inside(node("keras.src.saving.saving_lib", "Path.x")),
        "saving_lib.Path.x",
    ),
    "a function that Keras itself imported": (
        inside(function("keras.losses", "tf.py_function")),
        "tf.py_function",
    ),
    "a type to import": (
        inside(
            {
                "class_name": "__typespec__",
                "spec_name": "X",
                "module": "antigravity",
                "config": [],
                "registered_name": None,
            }
        ),
        "antigravity.X",
    ),
    "a name like a value's": (inside(node("antigravity", "__x__")), "antigravity.__x__"),
    "in the optimizer's place": (
        {**inside(node("keras.layers", "Flatten")), "compile_config": {"loss": function("os", "system")}},
        "os.system",
    ),
}
