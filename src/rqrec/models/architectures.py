"""The architectures by name, as used in configurations and artefacts."""

from typing import Any, NamedTuple

from rqrec.models.decoder_only import DecoderOnly, DecoderOnlyConfig
from rqrec.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rqrec.models.hierarchical import Hierarchical, HierarchicalConfig
from rqrec.models.retrieval_model import ModelConfig

AnyModel = DecoderOnly | EncoderDecoder | Hierarchical


class Architecture(NamedTuple):
    """The classes of a model and of its configuration."""

    model: type[Any]
    config: type[ModelConfig]


ARCHITECTURES = {
    "decoder_only": Architecture(DecoderOnly, DecoderOnlyConfig),
    "encoder_decoder": Architecture(EncoderDecoder, EncoderDecoderConfig),
    "hierarchical": Architecture(Hierarchical, HierarchicalConfig),
}


def architecture(name: str) -> Architecture:
    """The architecture of that name. Raises ValueError, listing the known names, if there is none."""
    if name not in ARCHITECTURES:
        raise ValueError(f"Unknown architecture {name!r}; allowed are {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def build_model(config: ModelConfig) -> AnyModel:
    """A model of the configuration's architecture, with freshly initialised weights."""
    return architecture(name_of(config)).model(config)


def name_of(config: ModelConfig) -> str:
    """The name of a configuration's architecture."""
    return next(name for name, entry in ARCHITECTURES.items() if type(config) is entry.config)
