"""The output layers of every architecture: from states to logits of codes.

Shapes: D width of a state, L levels, V codes of a level, M targets, R targets that have a choice at a level.
"""

from collections.abc import Sequence

from torch import Tensor, nn, zeros
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding
from rqrec.models.retrieval_model import Batch, ModelConfig
from rqrec.models.trie_softmax import Choice, TrainingLoss, choices_of
from rqrec.tokenizer.trie import Trie


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

    def choices(self, batch: Batch, trie: Trie) -> tuple[Choice, ...]:
        """What the model learns from a batch: the choices on the paths of its targets, one for each level."""
        return choices_of(batch.targets(last_only=self.learns_last_item_only), trie)

    def _loss(self, states_LRD: Sequence[Tensor], choices: Sequence[Choice], n_targets: int) -> TrainingLoss:
        """The training loss of M targets, from the states [R, D] of each level's choices."""
        logits_LRV = [self._logits(states_RD, level) for level, states_RD in enumerate(states_LRD)]
        smoothing = self.config.label_smoothing if self.training else 0.0
        return TrainingLoss.from_logits(logits_LRV, choices, n_targets, smoothing)
