"""The output layers of every architecture: from states to logits of codes.

Shapes: D width of a state, E width of a code's embedding, V codes of a level.
"""

from torch import Tensor, nn, zeros
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding
from rqrec.models.retrieval_model import ModelConfig


class CodeOutput(nn.Module):
    """Base class of models that generate codes.

    With `tie_codes`, a logit is the dot product of the (projected) state and the code's input embedding, plus a bias
    (weight tying, arXiv 1608.05859). Without it, each level has its own linear layer.
    """

    config: ModelConfig
    codes: CodeEmbedding
    learns_last_item_only = False
    """Whether the training loss is the mean over the last items of the sequences, or over all items."""

    def _build_output(self, config: ModelConfig, width: int) -> None:
        """Add the output layers, for states of this width."""
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
