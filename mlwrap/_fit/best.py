"""Decide which of two values of a metric is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mlwrap.errors import OptionError

Mode = Literal["min", "max"]

_VALIDATED_BY = 10  # epochs; validation_freq= is rarely larger
_ENDS_LOWER = re.compile(r"(loss|error|divergence|distance|perplexity|crossentropy)$")
_LOWER = "loss error err mse mae rmse mape msle nll bce kld perplexity crossentropy hinge logcosh wer cer fid"
_HIGHER = (
    "acc accuracy auc auroc auprc precision recall sensitivity specificity f1 fscore fbeta iou io_u dice "
    "jaccard r2 mcc kappa bleu rouge psnr ssim similarity reward"
)
_WORDS: dict[str, Mode] = {
    **{word.replace("_", ""): "min" for word in _LOWER.split()},
    **{word.replace("_", ""): "max" for word in _HIGHER.split()},
}
_KERAS_IOU = "io_u"  # the snake case that Keras makes of MeanIoU


class BestTracker:
    """The best value so far of one metric.

    Args:
        name: The metric, for example ``"val_loss"``.
        mode: Whether the lowest or the highest value is best; ``None`` to infer it from the metric.

    Raises:
        OptionError: Neither ``mode`` nor the name says which is better.

    Example:
        >>> best = BestTracker("val_dice_loss", None)
        >>> [best.is_in({"val_dice_loss": value}) for value in (0.5, 0.7, 0.4)]
        [True, False, True]
    """

    def __init__(self, name: str, mode: Mode | None) -> None:
        self.name = name
        self._mode = mode or mode_of_loss(name)
        self._fallback = self._mode or mode_of_words(name)
        if self._fallback is None:
            raise OptionError(
                f"best={name!r} can't be used without mode=: the name does not tell whether a lower or a "
                "higher value is better. Add mode='min' or mode='max'."
            )
        self._value = math.nan
        self.begin_fit()

    def begin_fit(self) -> None:
        """Start counting again the epochs of a fit without the metric."""
        self._missed = 0
        self._is_reported = False
        self._others: tuple[str, ...] = ()

    def is_in(self, values: Mapping[str, float], prefix: str = "", model: Any = None) -> bool:
        """Return whether an epoch's metric is a new best, and keep the value if so.

        Args:
            values: The epoch's metrics. NaN is never better.
            prefix: Prefix of the names in ``values``.
            model: The Keras model whose metric objects may say which is better.
        """
        value = values.get(f"{prefix}{self.name}")
        if value is None:
            self._missed, self._others = self._missed + 1, tuple(values)
            return False
        self._is_reported = True
        if self._mode is None:  # only now, because Keras makes a model's metrics in its first step
            self._mode = mode_of_metric(self.name, model) or self._fallback
        if math.isnan(value) or (value <= self._value if self._mode == "max" else value >= self._value):
            return False
        self._value = value
        return True

    def missed_for(self, epochs: int | None = None) -> str | None:
        """Return a warning if this fit has not had the metric for so many epochs.

        Args:
            epochs: By default 1; 10 for validation metrics, which need not come every epoch.
        """
        if epochs is None:
            epochs = _VALIDATED_BY if self.name.startswith("val_") else 1
        if self._is_reported or self._missed < epochs:
            return None
        return (
            f"best={self.name!r} is no metric of this fit, and no best model is logged; there are: "
            f"{', '.join(self._others)}."
        )


def check_mode(mode: object) -> None:
    """Raise if ``mode`` is unknown.

    Raises:
        OptionError: It is neither ``"min"``, ``"max"`` nor ``None``.
    """
    if mode not in {None, "min", "max"}:
        raise OptionError(f"mode={mode!r} can't be used: expected 'min' or 'max'.")


def check_positive(**options: Any) -> None:
    """Raise if a given option is not greater than 0.

    Raises:
        OptionError: Names the option.
    """
    for name, number in options.items():
        if number is not None and (isinstance(number, bool | str) or not number > 0):
            raise OptionError(f"{name}={number!r} can't be used: expected a number greater than 0.")


def mode_of_loss(name: str) -> Mode | None:
    """Return ``"min"`` for a name that ends in ``loss``, ``error`` or the like, whatever comes before."""
    return "min" if _ENDS_LOWER.search(name.lower()) else None


def mode_of_words(name: str) -> Mode | None:
    """Return the mode of a name's last known word: ``layer2_acc`` contains ``acc``, but not ``r2``."""
    words = re.split(r"[\W_]+", name.lower().replace(_KERAS_IOU, "iou"))
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), None)


def mode_of_metric(name: str, model: Any) -> Mode | None:
    """Return the mode that the metric object of that name declares, as those of Keras 3 do."""
    metric_name = name.removeprefix("val_")
    modes: Mapping[Any, Mode] = {"up": "max", "down": "min"}
    for metric in _metrics(model):
        # With several outputs, Keras prefixes the metric's name with the output's.
        if metric_name == metric.name or metric_name.endswith(f"_{metric.name}"):
            mode = modes.get(getattr(metric, "_direction", None))
            if mode is not None:
                return mode
    return None


def _metrics(model: Any) -> Iterator[Any]:
    for metric in getattr(model, "metrics", None) or ():
        nested = getattr(metric, "metrics", None)  # the metrics given to compile()
        yield from nested if isinstance(nested, list | tuple) else (metric,)
