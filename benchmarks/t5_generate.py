"""The same task with Hugging Face's T5 and its `generate`, as one would implement it without rqrec.

Sizes (layers, width, heads, feed-forward, history) are those of our encoder-decoder. Each level has its own tokens,
one for each code; `prefix_allowed_tokens_fn` looks up in a dictionary which tokens may follow a prefix. Seen items
are not excluded, since `generate` cannot do so.

Shapes: B histories, T items, N items of the catalogue, L levels.
"""

from collections import defaultdict

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from rqrec.models.encoder_decoder import EncoderDecoderConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable

PAD, EOS, FIRST = 0, 1, 2  # token ids; codes start at FIRST


class T5Generate:
    """Beam search with `num_beams` beams over the legal codes of a table."""

    def __init__(self, table: SemanticIdTable, num_beams: int) -> None:
        sizes = EncoderDecoderConfig(table.level_sizes)
        width, heads = sizes.attn_embed_dim, sizes.attn_heads
        starts_L = FIRST + np.cumsum([0, *table.level_sizes[:-1]])
        self.tokens_NL = torch.from_numpy(table.codes_NL + starts_L)
        self.num_beams = num_beams
        self.model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=FIRST + sum(table.level_sizes),
                d_model=width,
                d_kv=width // heads,
                d_ff=4 * width,
                num_layers=sizes.attn_layers,
                num_decoder_layers=sizes.attn_layers,
                num_heads=heads,
                pad_token_id=PAD,
                eos_token_id=EOS,
                decoder_start_token_id=PAD,
            )
        ).eval()
        children: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for tokens in self.tokens_NL.tolist():
            for level, token in enumerate(tokens):
                children[tuple(tokens[:level])].add(token)
        self.children = {prefix: sorted(tokens) for prefix, tokens in children.items()}

    def _allowed(self, row: int, tokens: torch.Tensor) -> list[int]:
        return self.children.get(tuple(tokens[1:].tolist()), [PAD])  # the first token is the decoder's start

    @torch.inference_mode()
    def recommend(self, items_BT: np.ndarray, k: int) -> torch.Tensor:
        """Tokens [B x k, 1 + L] of the k best items of each history."""
        input_ids = self.tokens_NL[torch.from_numpy(items_BT)].flatten(1)
        n_levels = self.tokens_NL.shape[1]
        return self.model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            num_beams=self.num_beams,
            num_return_sequences=k,
            min_new_tokens=n_levels,
            max_new_tokens=n_levels,
            do_sample=False,
            prefix_allowed_tokens_fn=self._allowed,
        )
