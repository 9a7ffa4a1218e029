"""The KV cache: keys and values of a history, which are computed once and shared by its beams.

Shapes: B batch, S cached positions, N new positions, K beams, l codes of a prefix, D width, H heads, d width of a
head.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def split_heads(x_BSD: Tensor, heads: int) -> Tensor:
    """[B, S, D] to [B, H, S, d]."""
    return x_BSD.unflatten(-1, (heads, -1)).transpose(1, 2)


class KeysValues(NamedTuple):
    """Keys and values [B, H, S, d] of one layer."""

    keys: Tensor
    values: Tensor

    def extended(self, keys_BHNd: Tensor, values_BHNd: Tensor) -> "KeysValues":
        """The cache with the keys and values of later positions appended."""
        return KeysValues(
            torch.cat([self.keys, keys_BHNd], dim=2), torch.cat([self.values, values_BHNd], dim=2)
        )


def beams_mask(past_mask_BS: Tensor, n_beams: int, length: int) -> Tensor:
    """Attention mask of K concatenated prefixes of `length` codes: bool [B, K x l, S + K x l], True: visible.

    Each code sees the past where `past_mask_BS` is True, and the codes of its own beam up to itself.
    """
    position_N = torch.arange(n_beams * length, device=past_mask_BS.device)
    beam_N = position_N // length
    own_NN = (beam_N[:, None] == beam_N) & (position_N <= position_N[:, None])
    n_batch = len(past_mask_BS)
    return torch.cat(
        [past_mask_BS[:, None].expand(-1, len(position_N), -1), own_NN.expand(n_batch, -1, -1)], dim=2
    )
