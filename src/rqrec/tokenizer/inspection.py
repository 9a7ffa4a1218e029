"""Quality of a set of semantic IDs: codebook usage, collisions, and whether similar items share prefixes.

Shapes: N items, B rows of a chunk, Q sampled items, L levels, D embedding dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rqrec.tokenizer.embedding_chunks import Embeddings, chunks
from rqrec.tokenizer.semantic_ids import LevelUsage, collision_rate, group_sizes, level_usage

CHUNK_ROWS = 8192
SAMPLE = 2000  # items that prefix agreement is measured on
LOW_USAGE = 0.5
LOW_PERPLEXITY = 0.25  # of the codebook size
HIGH_COLLISION = 0.3


@dataclass(frozen=True)
class PrefixAgreement:
    """Share of items whose first 1, 2, ..., L codes equal those of another item, one value per level.

    If the codes follow content, `neighbours` is far above `random_items`.
    """

    neighbours: tuple[float, ...]
    """The other item is the nearest neighbour by cosine similarity of the embeddings."""
    random_items: tuple[float, ...]
    """The other item is random."""


@dataclass(frozen=True)
class Inspection:
    """Quality metrics of a tokenizer's codes, without the deduplication code."""

    items: int
    codebook_sizes: tuple[int, ...]
    levels: tuple[LevelUsage, ...]
    collision_rate: float
    """Share of items that share all their codes with another item."""
    largest_group: int
    """Number of items in the largest group with the same codes."""
    agreement: PrefixAgreement | None
    """None if no embeddings were given."""

    def warnings(self) -> list[str]:
        """One sentence per problem; empty if the codes are healthy."""
        warnings = []
        for level, (size, usage) in enumerate(zip(self.codebook_sizes, self.levels, strict=True)):
            reachable = min(size, self.items)
            if usage.usage * size < LOW_USAGE * reachable:
                warnings.append(
                    f"Level {level} has collapsed: only {size - usage.dead_codes} of its {size} codes are "
                    f"used. Initialise with k-means and reset dead codes during training."
                )
            elif usage.perplexity < LOW_PERPLEXITY * reachable:
                warnings.append(
                    f"Level {level} is unbalanced: the perplexity of its {size} codes is only "
                    f"{usage.perplexity:.0f}. Balance the codes or train longer."
                )
        if self.collision_rate > HIGH_COLLISION:
            warnings.append(
                f"{self.collision_rate:.0%} of the items share all their codes with another item, up to "
                f"{self.largest_group} of them. Look for items with the same content; otherwise use more levels or "
                f"larger codebooks."
            )
        if self.agreement is not None and self.items > 1:
            neighbours, random_items = self.agreement.neighbours[0], self.agreement.random_items[0]
            if neighbours < 2 * random_items:
                warnings.append(
                    f"The codes do not follow content: {neighbours:.0%} of the items share their first code "
                    f"with their nearest neighbour, and {random_items:.0%} with a random item. Check that codes "
                    f"and embeddings describe the same items in the same order."
                )
        return warnings


def inspect_codes(
    codes_NL: NDArray[np.int64],
    codebook_sizes: Sequence[int],
    embeddings_ND: Embeddings | None,
    generator: torch.Generator,
) -> Inspection:
    """Measure codes int64 [N, L]; prefix agreement is measured on a random sample of items.

    Raises ValueError if codes and embeddings differ in number.
    """
    agreement = None
    if embeddings_ND is not None:
        if len(embeddings_ND) != len(codes_NL):
            raise ValueError(
                f"{len(codes_NL)} rows of codes and {len(embeddings_ND)} embeddings do not describe the same "
                f"items: give the embeddings that the codes were computed from."
            )
        if len(codes_NL) > 1:
            agreement = prefix_agreement(codes_NL, embeddings_ND, generator, SAMPLE)
    return Inspection(
        items=len(codes_NL),
        codebook_sizes=tuple(codebook_sizes),
        levels=tuple(level_usage(codes_NL, codebook_sizes)),
        collision_rate=collision_rate(codes_NL),
        largest_group=int(group_sizes(codes_NL).max()),
        agreement=agreement,
    )


def prefix_agreement(
    codes_NL: NDArray[np.int64], embeddings_ND: Embeddings, generator: torch.Generator, sample_size: int
) -> PrefixAgreement:
    """Share of sampled items that agree with their nearest neighbour and with a random item; needs N >= 2."""
    rows_Q = torch.randperm(len(codes_NL), generator=generator)[:sample_size].sort().values
    queries_QD = F.normalize(next(chunks(embeddings_ND[rows_Q.numpy()], len(rows_Q))), dim=1)
    rows_Q = rows_Q.to(queries_QD.device)
    best_Q = torch.full((len(rows_Q),), -torch.inf, device=queries_QD.device)
    neighbours_Q = torch.zeros_like(rows_Q)
    start = 0
    for x_BD in chunks(embeddings_ND, CHUNK_ROWS):
        cosines_QB = queries_QD @ F.normalize(x_BD, dim=1).T
        inside = (rows_Q >= start) & (rows_Q < start + len(x_BD))
        cosines_QB[inside, rows_Q[inside] - start] = -torch.inf  # exclude the item itself
        highest_Q, rows_in_chunk_Q = cosines_QB.max(dim=1)
        neighbours_Q = torch.where(highest_Q > best_Q, rows_in_chunk_Q + start, neighbours_Q)
        best_Q = torch.maximum(highest_Q, best_Q)
        start += len(x_BD)
    shift_Q = torch.randint(1, len(codes_NL), rows_Q.shape, generator=generator).numpy()
    rows, neighbours = rows_Q.cpu().numpy(), neighbours_Q.cpu().numpy()
    random_items = (rows + shift_Q) % len(codes_NL)
    return PrefixAgreement(
        _shared_prefixes(codes_NL[rows], codes_NL[neighbours]),
        _shared_prefixes(codes_NL[rows], codes_NL[random_items]),
    )


def items_with_prefix(codes_NL: NDArray[np.int64], prefix: Sequence[int]) -> NDArray[np.int64]:
    """Indices of the items whose codes start with `prefix`, ascending. Raises ValueError on too long a prefix."""
    if len(prefix) > codes_NL.shape[1]:
        raise ValueError(f"The prefix {list(prefix)} is longer than the {codes_NL.shape[1]} levels.")
    return np.flatnonzero((codes_NL[:, : len(prefix)] == np.asarray(prefix, dtype=np.int64)).all(axis=1))


def _shared_prefixes(a_QL: NDArray[np.int64], b_QL: NDArray[np.int64]) -> tuple[float, ...]:
    shared_QL = np.logical_and.accumulate(a_QL == b_QL, axis=1)
    return tuple(shared_QL.mean(axis=0).tolist())
