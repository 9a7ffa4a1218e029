"""gin-config, the one configuration system: a `.gin` file and `--gin` bindings set a function's arguments."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin

# Constants that configuration files of the reference implementation name, as the strings that we use.
_CONSTANTS = {
    "data.processed.RecDataset.AMAZON": "amazon",
    "data.processed.RecDataset.ML_1M": "ml-1m",
    "data.processed.RecDataset.ML_32M": "ml-32m",
    "data.processed.RecDataset.CUSTOM": "custom",
    "modules.quantize.QuantizeForwardMode.GUMBEL_SOFTMAX": "GUMBEL_SOFTMAX",
    "modules.quantize.QuantizeForwardMode.STE": "STE",
    "modules.quantize.QuantizeForwardMode.ROTATION_TRICK": "ROTATION_TRICK",
    "modules.model.ModelType.DECODER": "decoder_only",
    "modules.model.ModelType.ENCODER_DECODER": "encoder_decoder",
}


def configured(
    functions: dict[str, Callable[..., Any]], files: Sequence[Path], bindings: Sequence[str] = ()
) -> dict[str, Callable[..., Any]]:
    """The functions with arguments bound by gin: `train.iterations = 100` sets that of functions["train"].

    Later files and bindings win. Raises FileNotFoundError on a missing file and ValueError on an unknown
    name, with the names that exist.
    """
    for path in files:
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no configuration file {path}. Examples are in configs/.")
    # Interactive mode allows to register again: each command of a process has its own `train`.
    with gin.config.interactive_mode():
        gin.clear_config(clear_constants=True)
        for name, value in _CONSTANTS.items():
            gin.constant(name, value)
        for name, function in functions.items():
            gin.external_configurable(function, name=name, module="rqrec")
        try:
            for path in files:
                # A name to skip, which nothing has, lets imports of modules that are not here pass.
                gin.parse_config_file(str(path), skip_unknown=["-"])
            gin.parse_config(list(bindings), skip_unknown=["-"])
        except (ValueError, TypeError, SyntaxError, NameError, AttributeError, OSError) as error:
            allowed = "; ".join(
                f"{name}: {', '.join(inspect.signature(function).parameters)}"
                for name, function in functions.items()
            )
            raise ValueError(
                f"{str(error).strip()}\nThe names that can be set are, for {allowed}."
            ) from error
    # Not gin's own wrapper, which adds to the words of every error that passes through it.
    return {name: functools.partial(f, **gin.get_bindings(name)) for name, f in functions.items()}
