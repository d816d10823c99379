"""What a caller asked of a value's models, as each of them is to be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mlwrap._savers.saver import SaveOptions


def per_model(options: SaveOptions, names: Sequence[str]) -> tuple[list[SaveOptions], list[str]]:
    """The options of each model.

    One name in the registry is one model's. What is given as a mapping of models' names is each model's own.

    Args:
        options: What was asked for the whole value.
        names: The names of the models in it, in their order.

    Returns:
        The options, in the same order; and what can't be done as it was asked, in sentences.
    """
    registered, troubles = options.register_as, []
    if isinstance(registered, Mapping):
        if strange := [name for name in registered if name not in names]:
            troubles.append(
                f"register_as= names {_listed(strange)}, and what came is {_listed(names)}; what is not "
                "there is not registered."
            )
    elif registered is not None and len(names) != 1:
        troubles.append(
            f"register_as={registered!r} is for one model, and {len(names) or 'none'} came"
            + (
                f" ({_listed(names)}); none is registered. Name each: "
                if names
                else ". For several, name each: "
            )
            + "register_as={'<model>': '<name>'}."
        )
        registered = None
    example = options.input_example
    by_model = isinstance(example, Mapping) and bool(example) and set(example) <= set(names)
    each = [
        msgspec.structs.replace(
            options,
            register_as=registered.get(name) if isinstance(registered, Mapping) else registered,
            input_example=example.get(name) if by_model else example,
        )
        for name in names
    ]
    return each, troubles


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no model"
