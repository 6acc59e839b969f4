"""Import what nearly every notebook uses. The server process imports this module before it forks kernels."""

# ruff: noqa: E402, F401
import gc

gc.disable()  # the imports make half a million permanent objects; scanning them takes a fifth of the time

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
from caft_utils.classroom.vocabulary import world_data

for name in ("code", "cues", "domains", "facts", "items", "scenes", "words"):
    world_data(name)  # reading the words of the worlds takes half a second

# The garbage collector of a forked kernel skips the objects of these imports and leaves their memory shared.
gc.collect()
gc.freeze()
gc.enable()
