"""What nearly every notebook imports; the server process imports this module before it forks kernels."""

# ruff: noqa: F401
import gc

import ipykernel.kernelapp
import pandas
import papermill
import peft
import plotly.graph_objects
import sae_lens
import torch
import transformers.models.ministral.modeling_ministral
import transformers.models.qwen2.modeling_qwen2

import caft_utils.course.annotations
import caft_utils.course.tutorial.runner
import caft_utils.finetuning.trainer
import caft_utils.interpret.explorer

# The garbage collector of a forked kernel then skips the objects of these imports, of which there are a
# million, and leaves their memory shared.
gc.collect()
gc.freeze()
