"""From states to logits of codes, which is where every architecture ends.

Shapes: D width of a state, E width of a code's embedding, V codes of a level.
"""

from torch import Tensor, nn, zeros
from torch.nn import functional

from rqrec.models.interface import ModelConfig
from rqrec.models.layers import CodeEmbedding


class CodeOutput(nn.Module):
    """A model that generates codes.

    With `tie_codes` a logit is the likeness of the state to the code's own input embedding, plus a bias (weight
    tying, arXiv 1608.05859); without, each level has a linear map of its own.
    """

    config: ModelConfig
    codes: CodeEmbedding

    def _build_output(self, config: ModelConfig, width: int) -> None:
        """The last layers, of a model whose states have that width."""
        embed = config.decoder_embed_dim
        if config.tie_codes:
            self.narrow = nn.Linear(width, embed, bias=False) if embed != width else nn.Identity()
            self.bias = nn.Parameter(zeros(sum(config.level_sizes)))
        else:
            self.heads = nn.ModuleList(nn.Linear(width, size) for size in config.level_sizes)

    def _logits(self, state: Tensor, level: int) -> Tensor:
        """Logits [..., V] of one level from states [..., D]."""
        if not self.config.tie_codes:
            return self.heads[level](state)
        start = sum(self.config.level_sizes[:level])
        bias_V = self.bias[start : start + self.config.level_sizes[level]]
        return functional.linear(self.narrow(state), self.codes.rows(level), bias_V)
