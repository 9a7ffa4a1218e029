"""The architectures by the names that configurations and checkpoints give them."""

from typing import Any, NamedTuple

from rqrec.models.decoder_only import DecoderOnly, DecoderOnlyConfig
from rqrec.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rqrec.models.hierarchical import Hierarchical, HierarchicalConfig
from rqrec.models.interface import ModelConfig

AnyModel = DecoderOnly | EncoderDecoder | Hierarchical


class Architecture(NamedTuple):
    """The class of a model and that of its sizes."""

    model: type[Any]
    config: type[ModelConfig]


ARCHITECTURES = {
    "decoder_only": Architecture(DecoderOnly, DecoderOnlyConfig),
    "encoder_decoder": Architecture(EncoderDecoder, EncoderDecoderConfig),
    "hierarchical": Architecture(Hierarchical, HierarchicalConfig),
}


def architecture(name: str) -> Architecture:
    """The architecture of that name. Raises ValueError with the names that exist."""
    if name not in ARCHITECTURES:
        raise ValueError(f"There is no architecture {name!r}: use {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def build_model(config: ModelConfig) -> AnyModel:
    """A model with fresh weights, of the architecture that the configuration is for."""
    return architecture(name_of(config)).model(config)


def name_of(config: ModelConfig) -> str:
    """The name of the architecture that a configuration is for."""
    return next(name for name, kind in ARCHITECTURES.items() if type(config) is kind.config)
