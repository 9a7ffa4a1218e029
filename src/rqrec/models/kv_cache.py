"""Keys and values that are kept, so that a history is read once and its beams go on from there.

Shapes: B batch, S positions that were read, N new positions, P = S + N, K beams, l codes of a prefix, D width,
H heads, d width of a head.
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
        """With those of the positions that come after."""
        return KeysValues(
            torch.cat([self.keys, keys_BHNd], dim=2), torch.cat([self.values, values_BHNd], dim=2)
        )


def beams_mask(past_mask_BS: Tensor, n_beams: int, length: int) -> Tensor:
    """What each code of K prefixes of `length` codes, side by side, may see: bool [B, K x l, S + K x l].

    All of the past that `past_mask_BS` lets through, and the codes of its own beam up to itself.
    """
    place_N = torch.arange(n_beams * length, device=past_mask_BS.device)
    beam_N = place_N // length
    own_NN = (beam_N[:, None] == beam_N) & (place_N <= place_N[:, None])
    n_batch = len(past_mask_BS)
    return torch.cat(
        [past_mask_BS[:, None].expand(-1, len(place_N), -1), own_NN.expand(n_batch, -1, -1)], dim=2
    )
