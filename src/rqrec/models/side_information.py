"""Side information on a history: its user, and the time between its items.

Shapes: B batch, T items of a history, P positions of an item (its codes), D width, G bucket boundaries.
"""

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.data.ids import PADDING

SHORTEST, LONGEST = 60, 2 * 365 * 24 * 3600  # seconds: the first and the last bucket boundary


def user_number(user_id: str | None) -> int:
    """A hash of the user id from 0 to 2**63 - 1, the same on every machine; PADDING for None."""
    if user_id is None:
        return PADDING
    return int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest(), "big") >> 1


class SideInformation(nn.Module):
    """Embeddings of the user and of the time between items, both optional.

    `user_buckets`: number of tokens that user ids are hashed into (2000 in TIGER, arXiv 2305.05065, section 3.2).
    `time_gaps`: number of buckets for the time since the previous item, log-spaced from a minute to two years.
    0 disables either one. Row 0 of a table stays zero: it stands for no user, or no previous item.
    """

    gaps_G: Tensor

    def __init__(self, user_buckets: int, time_gaps: int, width: int) -> None:
        super().__init__()
        gaps_G = np.geomspace(SHORTEST, LONGEST, max(0, time_gaps - 1)).round().astype(np.int64)
        self.register_buffer("gaps_G", torch.from_numpy(gaps_G), persistent=False)
        self.user = _table(user_buckets, width) if user_buckets else None
        self.gap = _table(time_gaps, width) if time_gaps else None

    def with_user(self, begin_B1D: Tensor, users_B: Tensor | None) -> Tensor:
        """Add the user's embedding to BEGIN. `users_B` are user numbers, PADDING for an unknown user."""
        if self.user is None or users_B is None:
            return begin_B1D
        rows_B = torch.where(users_B == PADDING, 0, users_B % (self.user.num_embeddings - 1) + 1)
        return begin_B1D + self.user(rows_B)[:, None]

    def with_gaps(self, x_BTPD: Tensor, times_BT: Tensor | None) -> Tensor:
        """Add the embedding of the time since the previous item to the last position of each item.

        Only to the last, because a causal model reads the other positions while it is still generating the same item,
        whose time is not known yet. `times_BT` (seconds since 1970) may have more columns than there are items.

        Raises ValueError if the model needs times and `times_BT` is None.
        """
        if self.gap is None:
            return x_BTPD
        if times_BT is None:
            raise ValueError(
                "This model uses the time between items (it was trained with time_gaps), but the histories "
                "have no timestamps. Give the timestamp of each item."
            )
        n_items, n_positions = x_BTPD.shape[1:3]
        buckets = torch.bucketize(times_BT[:, 1:] - times_BT[:, :-1], self.gaps_G, right=True) + 1
        rows_BT = functional.pad(buckets, (1, 0))[:, :n_items]  # row 0: the first item has no previous one
        gaps_BT1D = self.gap(rows_BT)[:, :, None]
        return x_BTPD + functional.pad(gaps_BT1D, (0, 0, n_positions - 1, 0))


def _table(size: int, width: int) -> nn.Embedding:
    table = nn.Embedding(size + 1, width, padding_idx=0)
    nn.init.normal_(table.weight, std=0.02)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
