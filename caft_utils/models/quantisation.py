"""Weights of four bits and optimisers of eight bits, which the package bitsandbytes computes on CUDA GPUs.

    model, tokenizer = load("Qwen/Qwen2.5-Coder-32B-Instruct", dtype="nf4")     # QLoRA: 65 GB become 20
    finetune(model, chats, FinetuneConfig(optimizer="adamw_8bit"))

The weights are stored in the 4-bit type NF4 with quantised scales, and computed with in bfloat16 (Dettmers et
al., arXiv 2305.14314). The paper's own runs keep the weights in bfloat16 and use the 8-bit optimiser.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

FOUR_BIT = "nf4"


def require_bitsandbytes(what: str, device: torch.device, instead: str) -> None:
    """Refuse `what` where bitsandbytes cannot run.

    Raises:
        RuntimeError: bitsandbytes is not installed, or `device` is no CUDA GPU.
    """
    missing = [] if find_spec("bitsandbytes") else ["the package bitsandbytes is not installed"]
    if device.type != "cuda":
        missing.append(f"the model is on {str(device)!r}, not on a CUDA GPU")
    if missing:
        raise RuntimeError(
            f"{what} cannot run here: {' and '.join(missing)}. Use {instead}, or a machine with a CUDA GPU, "
            "`pip install bitsandbytes` and load(..., device='cuda')"
        )


def check_optimizer(name: str, device: torch.device) -> None:
    """Refuse an optimiser of bitsandbytes where it cannot run.

    Raises:
        RuntimeError: see `require_bitsandbytes`.
    """
    elsewhere = name.startswith(("adamw_torch", "galore"))  # 8-bit optimisers of torchao and GaLore
    if not elsewhere and any(word in name for word in ("8bit", "bnb", "paged", "ademamix", "lion")):
        require_bitsandbytes(f"optimizer {name!r}", device, "optimizer='adamw'")


def four_bit(device: Any) -> BitsAndBytesConfig:
    """Return the setting of transformers for weights in NF4.

    Raises:
        RuntimeError: see `require_bitsandbytes`.
    """
    where = torch.device("cuda" if device == "auto" else device)
    require_bitsandbytes(f"dtype={FOUR_BIT!r}", where, "dtype='bfloat16'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=FOUR_BIT,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
