"""Which evaluation protocol an artefact has learned from.

Collaborative vectors, their tokenizer, its semantic IDs and models have learned from the training interactions of one
protocol, and some of these are test targets of another. Each of these artefacts records the protocol in its settings,
and a stage refuses one that was learned under another protocol.
"""

from pathlib import Path

from rqrec.core.artifact import Manifest


def protocol_of(manifest: Manifest) -> str | None:
    """The protocol whose training interactions an artefact has learned from; None if it has learned from none."""
    settings = manifest.settings
    if "protocol" in settings:
        return settings["protocol"]
    # Up to version 0.2 the setting was called "split", and that of embeddings was one of the collaborative vectors.
    collaborative = settings.get("collaborative")
    return collaborative.get("split", "leave_one_out") if collaborative else settings.get("split")


def check_protocol(source: Path | str, learned: str | None, protocol: str) -> None:
    """Raise ValueError if `source` has learned from the training interactions of another protocol (`learned`)."""
    if learned not in (None, protocol):
        raise ValueError(
            f"{source} was learned with the protocol {learned}: its training data may contain test examples of "
            f"{protocol}. Make it again with the protocol {protocol} (collaborative vectors: `rqrec embed "
            f"--protocol {protocol}`), or use {learned}."
        )


def common_protocol(learned: dict[str, str | None]) -> str | None:
    """The protocol that all sources, by name, have learned from; None if none of them has.

    Raises ValueError if two have learned from different protocols.
    """
    known = {name: protocol for name, protocol in learned.items() if protocol is not None}
    for name, protocol in known.items():
        check_protocol(name, protocol, next(iter(known.values())))
    return next(iter(known.values()), None)
