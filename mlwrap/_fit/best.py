"""Decide which of two values of a metric is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mlwrap.errors import OptionError

Mode = Literal["min", "max"]

_VALIDATED_BY = 10  # epochs: validation_freq= is rarely larger
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
_KERAS_IOU = "io_u"  # as Keras spells MeanIoU in snake case


class BestTracker:
    """The best value so far of one metric.

    Args:
        name: The metric, as ``"val_loss"``.
        mode: Whether the lowest or the highest is best; ``None`` to tell by the metric.

    Raises:
        OptionError: Neither ``mode`` nor the name tells.

    Example:
        >>> best = Best("val_dice_loss", None)
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
        """Count anew in how many epochs of a fit the metric is missing."""
        self._missed = 0
        self._is_reported = False
        self._others: tuple[str, ...] = ()

    def is_in(self, values: Mapping[str, float], prefix: str = "", model: Any = None) -> bool:
        """Tell whether the metric is among an epoch's and better than all before, and keep it if so.

        Args:
            values: The epoch's metrics. NaN is never better.
            prefix: What stands before the names of ``values``.
            model: The Keras model whose metric objects may tell what is better.
        """
        value = values.get(f"{prefix}{self.name}")
        if value is None:
            self._missed, self._others = self._missed + 1, tuple(values)
            return False
        self._is_reported = True
        if self._mode is None:  # only now: Keras makes a model's metrics in its first step
            self._mode = mode_of_metric(self.name, model) or self._fallback
        if math.isnan(value) or (value <= self._value if self._mode == "max" else value >= self._value):
            return False
        self._value = value
        return True

    def missed_for(self, epochs: int | None = None) -> str | None:
        """Say that this fit has not had the metric for so many epochs.

        Args:
            epochs: By default one; ten for the metrics of the validation, which need not come every epoch.
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
    """Refuse a ``mode`` that there is not.

    Raises:
        OptionError: It is neither ``"min"``, ``"max"`` nor ``None``.
    """
    if mode not in {None, "min", "max"}:
        raise OptionError(f"mode={mode!r} can't be used: expected 'min' or 'max'.")


def check_positive(**options: Any) -> None:
    """Refuse options that are given and are not greater than 0.

    Raises:
        OptionError: One is not: names it.
    """
    for name, number in options.items():
        if number is not None and (isinstance(number, bool | str) or not number > 0):
            raise OptionError(f"{name}={number!r} can't be used: expected a number greater than 0.")


def mode_of_loss(name: str) -> Mode | None:
    """``"min"`` for a name that ends in ``loss``, ``error`` or the like, whatever comes before."""
    return "min" if _ENDS_LOWER.search(name.lower()) else None


def mode_of_words(name: str) -> Mode | None:
    """What the last telling word of a name says: ``layer2_acc`` has ``acc`` in it, and no ``r2``."""
    words = re.split(r"[\W_]+", name.lower().replace(_KERAS_IOU, "iou"))
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), None)


def mode_of_metric(name: str, model: Any) -> Mode | None:
    """What the metric object of that name says of itself, as those of Keras 3 do."""
    wanted = name.removeprefix("val_")
    modes: Mapping[Any, Mode] = {"up": "max", "down": "min"}
    for metric in _metrics(model):
        # Of several outputs, Keras writes the output's name before the metric's.
        if wanted == metric.name or wanted.endswith(f"_{metric.name}"):
            mode = modes.get(getattr(metric, "_direction", None))
            if mode is not None:
                return mode
    return None


def _metrics(model: Any) -> Iterator[Any]:
    for metric in getattr(model, "metrics", None) or ():
        within = getattr(metric, "metrics", None)  # those given to compile()
        yield from within if isinstance(within, list | tuple) else (metric,)
