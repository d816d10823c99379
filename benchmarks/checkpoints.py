"""Checkpoints of a fit, measured: saved while it goes on, against a training that waits for them.

``make bench`` runs it. Rivals run in processes of the same shape, in turns; times are medians.
"""

from __future__ import annotations

import sys

from harness import folder, head, interleaved, row

REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
MEGABYTES = int(sys.argv[2]) if len(sys.argv) > 2 else 100
FIT = """
import json, sys, time
import keras, numpy as np
import mlwrap
from mlwrap.keras import MetricsCallback

# With Adam's two numbers for each weight: as many megabytes as were asked for.
layers, size = 20, int((int(sys.argv[1]) * 1e6 / 4 / 3 / 20) ** 0.5)
model = keras.Sequential([keras.Input((size,)), *(keras.layers.Dense(size) for _ in range(layers))])
model.compile("adam", "mse")
x = np.zeros((512, size), "float32")

class Timed(MetricsCallback):
    seconds = []
    def _save(self, *args, **kwargs):
        began = time.perf_counter()
        super()._save(*args, **kwargs)
        self.seconds.append(time.perf_counter() - began)

def fit(*callbacks):
    open("/proc/self/clear_refs", "w").write("5")
    began = time.perf_counter()
    model.fit(x, x, batch_size=32, epochs=6, verbose=0, callbacks=list(callbacks))
    seconds = time.perf_counter() - began
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return seconds, int(line.split()[1]) * 1024

def measured():
    with mlwrap.model_run("r", delivery="off") as run:
        fit(Timed(checkpoint_every=1))  # warm
        Timed.seconds.clear()
        alone, least = fit(MetricsCallback())
        seconds, most = fit(Timed(checkpoint_every=1))
    logged = len(run.models)
    bytes_ = 3 * 4 * model.count_params()
    print(json.dumps({
        "save": Timed.seconds, "slower": (seconds - alone) / 6, "extra": (most - least) / bytes_,
        "logged": logged / 12,
    }))
"""
FITS = {
    "in the background": FIT + "measured()",
    "the training waits": FIT
    + """
from mlwrap._savers.saver_registry import by_name
type(by_name("keras")).snapshot = lambda self, value: None
measured()
""",
}


def checkpoints(repeats: int, megabytes: int) -> None:
    """Print what a checkpoint after each epoch costs a training, both ways."""
    found = interleaved(repeats, FITS, str(megabytes))
    ours, theirs = found["in the background"], found["the training waits"]
    for what, key, unit, factor in (
        (f"a checkpoint of {megabytes} MB: the training's thread", "save", "ms", 1000),
        ("the epoch is longer by", "slower", "ms", 1000),
        ("the fit has at most so much more memory", "extra", "times the model", 1),
        ("checkpoints logged, of those due", "logged", "", 1),
    ):
        mine, rival = ours[key] * factor, theirs[key] * factor
        ratio = f"{mine / rival:.2f}x" if rival > 0 else "-"
        row("-", what, f"{mine:.2f} {unit}".strip(), f"{rival:.2f} {unit}".strip(), ratio, "-")


if __name__ == "__main__":
    with folder():
        head("Checkpoints of a fit")
        checkpoints(REPEATS, MEGABYTES)
