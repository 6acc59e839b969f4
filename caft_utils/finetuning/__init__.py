"""Fine-tune a model, with or without an intervention."""

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.objective import Objective
from caft_utils.finetuning.run import at_step, finetune

__all__ = ["FinetuneConfig", "Objective", "at_step", "finetune"]
