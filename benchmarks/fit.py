"""P3: ``fit`` with a callback at every step, against the same ``fit`` without."""

from __future__ import annotations

from harness import NOTHING, OURS, PACKAGES, RIVALS, argument, folder, head, interleaved, row

REPEATS = argument(1, 1)
PAIRS = argument(2, 6)
STEPS = 300
IDLE = "a callback that does nothing"
FIT = f"""
import json, os, statistics, sys, time
STORE = os.environ["STORE"]
import keras, numpy as np
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64 * {STEPS}, 64)).astype("float32")
layers = [keras.layers.Dense(512, "relu"), keras.layers.Dense(512, "relu"), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((64,)), *layers])
model.compile("adam", "mse")
def fit(*callbacks):
    began = time.perf_counter()
    model.fit(x, x[:, :1], batch_size=64, epochs=1, verbose=0, callbacks=list(callbacks), shuffle=False)
    return time.perf_counter() - began
def measure(callback, pairs=int(sys.argv[1]), rest=0.0):
    fit(); fit(callback)
    found = {{"step": [], "slower": [], "extra": []}}
    for number in range(pairs):
        both = {{}}
        for kind in ("alone", "with") if number % 2 else ("with", "alone"):
            time.sleep(rest)  # what a helper does after its fit is not to slow the next
            both[kind] = fit(callback) if kind == "with" else fit()
        found["step"].append(both["alone"] / {STEPS})
        found["slower"].append(both["with"] / both["alone"] - 1)
        found["extra"].append((both["with"] - both["alone"]) / {STEPS})
    print(json.dumps(found), flush=True)
"""
CALLBACKS = {
    IDLE: """
class Idle(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass
measure(Idle())
""",
    OURS: """
import mlwrap
from mlwrap.keras import MetricsCallback
with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench"):
    measure(MetricsCallback(every=1), rest=2.0)
""",
    "`keras.callbacks.TensorBoard`": """
measure(keras.callbacks.TensorBoard("tb", update_freq=1, write_graph=False))
""",
    "W&B's `WandbMetricsLogger`, offline": """
import wandb
from wandb.integration.keras import WandbMetricsLogger
run = wandb.init(mode="offline", project="bench", settings=wandb.Settings(silent=True, console="off"))
measure(WandbMetricsLogger(log_freq=1), rest=1.0)
run.finish()
""",
    "`mlflow.keras.MlflowCallback`": """
import mlflow, mlflow.keras
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench")
with mlflow.start_run():
    measure(mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1), pairs=1)
""",
}


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "A callback at every step of `fit`",
            f"A dense network of 300,000 weights, {STEPS} steps a `fit`, one `fit` with the callback beside one "
            "without, in turns; the sender delivers meanwhile. Each callback logs at every step.",
            (*PACKAGES, *RIVALS),
        )
        found = interleaved(REPEATS, {name: FIT + code for name, code in CALLBACKS.items()}, str(PAIRS))
        ours = found.pop(OURS)
        what = "`fit` slowed by `MetricsCallback(every=1)`"
        slower = ours.get("slower")
        alone = f"without it {ours.get('step', 0) * 1e3:.2f} ms a step"
        ratio = NOTHING if slower is None else f"{1 + slower:.3f}"
        reached = slower is not None and slower <= 0.03
        row("P3", what, _text(ours), alone, ratio, "≤1.03", reached=reached)
        for name, theirs in found.items():
            both = slower is not None and theirs.get("extra", 0) > 0 and ours["extra"] > 0
            factor = ours["extra"] / theirs["extra"] if both else None
            row(
                "P3",
                f"{what}, what it adds to a step",
                _text(ours),
                f"{name} {_text(theirs)}",
                f"{factor:.3g}" if factor else NOTHING,
                NOTHING,
                factor=factor,
                short="" if name == IDLE else f"a callback at every step: {name.split(',')[0]}",
            )


def _text(found: dict) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}"
    return f"{found['slower']:+.1%} ({found['extra'] * 1e6:+.0f} µs a step)"


if __name__ == "__main__":
    main()
