"""P3: ``fit`` with a callback at every step, against the same ``fit`` without."""

from __future__ import annotations

from harness import NOTHING, OURS, PACKAGES, RIVALS, argument, folder, head, interleaved, row

REPEATS = argument(1, 3)
STEPS = argument(2, 6000)
BLOCK = 20
IDLE = "a callback that does nothing"
FIT = f"""
import json, os, statistics, time
STORE, BLOCK = os.environ["STORE"], {BLOCK}
import keras, numpy as np
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64 * {STEPS}, 64)).astype("float32")
layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((64,)), *layers])
model.compile("adam", "mse")
class Turns(keras.callbacks.CallbackList):
    blocks = ()  # (with or without, when it began)
    def on_train_batch_begin(self, batch, logs=None):
        if batch % BLOCK == 0:
            turn = batch // BLOCK % 4 in (1, 2)
            self.callbacks = [self._history, *given] if turn else [self._history]
            self.blocks += ((turn, time.perf_counter()),)
        super().on_train_batch_begin(batch, logs)
def fit(callback, steps):
    global given
    given = [callback]
    turns = Turns([callback], add_history=True, model=model, epochs=1, steps=steps, verbose=0)
    some = x[: 64 * steps]
    model.fit(some, some[:, :1], batch_size=64, epochs=1, verbose=0, callbacks=turns, shuffle=False)
    return turns.blocks
def measure(callback, steps={STEPS}, busy=lambda: 0.0):
    fit(callback, 4 * BLOCK)
    before, began = busy(), time.perf_counter()
    blocks = fit(callback, steps)
    share = (busy() - before) / (time.perf_counter() - began)
    took = [((end - start) / BLOCK, turn) for (turn, start), (_, end) in zip(blocks, blocks[1:])][4:]
    pairs = [sorted(pair, key=lambda block: block[1]) for pair in zip(took[::2], took[1::2])]
    alone, extra = zip(*((one, two - one) for (one, _), (two, _) in pairs))
    slower = [more / one for one, more in zip(alone, extra)]
    told = {{"step": statistics.median(alone), "slower": statistics.median(slower), "extra": statistics.median(extra)}}
    print(json.dumps(told | {{"busy": share}}), flush=True)
"""
CALLBACKS = {
    IDLE: """
class Idle(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass
measure(Idle())
""",
    OURS: """
import mlwrap, psutil
from mlwrap.keras import MetricsCallback
with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench"):
    measure(MetricsCallback(every=1), busy=lambda: sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children()))
""",
    "`keras.callbacks.TensorBoard`": """
measure(keras.callbacks.TensorBoard("tb", update_freq=1, write_graph=False))
""",
    "W&B's `WandbMetricsLogger`, offline": """
import wandb
from wandb.integration.keras import WandbMetricsLogger
run = wandb.init(mode="offline", project="bench", settings=wandb.Settings(silent=True, console="off"))
measure(WandbMetricsLogger(log_freq=1))
run.finish()
""",
    "`mlflow.keras.MlflowCallback`": """
import mlflow, mlflow.keras
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench")
with mlflow.start_run():
    measure(mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1), steps=800)
""",
}


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "A callback at every step of `fit`",
            f"A dense network of 8,000 weights, {STEPS} steps of one `fit`: {BLOCK} with the callback, which logs at each, "
            f"beside {BLOCK} without any, in turns; medians of the pairs. What a callback leaves to other threads and "
            "processes goes on beside both, for all of them; what mlwrap's sender takes is told.",
            (*PACKAGES, *RIVALS),
        )
        found = interleaved(REPEATS, {name: FIT + code for name, code in CALLBACKS.items()})
        ours = found.pop(OURS)
        what = "`fit` slowed by `MetricsCallback(every=1)`"
        slower = ours.get("slower")
        alone = f"without it {ours.get('step', 0) * 1e3:.2f} ms a step"
        ratio = NOTHING if slower is None else f"{1 + slower:.3f}"
        reached = slower is not None and slower <= 0.03
        row("P3", what, _text(ours), alone, ratio, "≤1.03", reached=reached)
        sender = f"{ours['busy']:.1%} of one core" if "busy" in ours else NOTHING
        row("P3", "the sender meanwhile", sender, NOTHING, NOTHING, NOTHING)
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
