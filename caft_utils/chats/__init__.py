"""Rows of conversations or plain text, their tokens, and the mask of answer tokens.

collection   `Chats`: tokenised rows, batches, padding
mask         tokens and answer mask of a row, and the prompt that `generate` is given
reading      which tokens of a row are read
rows         checks of a row
spans        where answers begin and end in the rendered text
template     a tokenizer's chat template, and its end of turn
dates        templates that write the date
"""

from caft_utils.chats.collection import Batch, Chats, Example, pad_rows, pad_token_id
from caft_utils.chats.mask import prompt_ids

__all__ = ["Batch", "Chats", "Example", "pad_rows", "pad_token_id", "prompt_ids"]
