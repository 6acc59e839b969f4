"""The residual stream: its sites, hidden states captured or edited there, and streams of them over a text.

A decoder-only transformer adds to one running vector per token. Layer l >= 0 is that vector after decoder
block l (`resid_post`), and layer EMBEDDING = -1 is the vector before block 0. CAFT reads and edits the
outputs of decoder blocks (arXiv 2507.16795, section 3).
"""

from caft_utils.chats.reading import Tokens
from caft_utils.residual.modes import evaluating, seeded
from caft_utils.residual.sites import (
    EMBEDDING,
    capture,
    decoder,
    decoder_blocks,
    depth,
    edit,
    has_hooks,
    has_replaced_forward,
    hidden_of,
    site,
    width,
    without_hooks,
)
from caft_utils.residual.streaming import ActivationBatch, stream_activations

__all__ = [
    "EMBEDDING",
    "ActivationBatch",
    "Tokens",
    "capture",
    "decoder",
    "decoder_blocks",
    "depth",
    "edit",
    "evaluating",
    "has_hooks",
    "has_replaced_forward",
    "hidden_of",
    "seeded",
    "site",
    "stream_activations",
    "width",
    "without_hooks",
]
