"""Split the options of a call into the options of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mlwrap._savers.saver_interface import SaveOptions


def per_model(options: SaveOptions, names: Sequence[str]) -> tuple[list[SaveOptions], list[str]]:
    """Return the options of each model.

    A single registered name belongs to a single model. A mapping has an entry for each model's name.

    Args:
        options: The options for the whole value.
        names: The names of the models in it, in order.

    Returns:
        The options, in the same order; and the options that can't be followed, one sentence each.
    """
    registered, problems = options.register_as, []
    if isinstance(registered, Mapping):
        if unknown := [name for name in registered if name not in names]:
            problems.append(
                f"register_as= names {_quoted(unknown)}, and what came is {_quoted(names)}; what is not "
                "there is not registered."
            )
    elif registered is not None and len(names) != 1:
        problems.append(
            f"register_as={registered!r} is for one model, and {len(names) or 'none'} came"
            + (
                f" ({_quoted(names)}); none is registered. Name each: "
                if names
                else ". For several, name each: "
            )
            + "register_as={'<model>': '<name>'}."
        )
        registered = None
    example = options.input_example
    by_model = isinstance(example, Mapping) and bool(example) and set(example) <= set(names)
    model_options = [
        msgspec.structs.replace(
            options,
            register_as=registered.get(name) if isinstance(registered, Mapping) else registered,
            input_example=example.get(name) if by_model else example,
        )
        for name in names
    ]
    return model_options, problems


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no model"
