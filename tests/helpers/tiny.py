"""Tiny real models, with and without an image encoder, and a tokenizer with chat markup."""

from __future__ import annotations

VOCABULARY = 384
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WORDS = "system user assistant you are the question is what do to with and import def return self open file"


def make_tokenizer(template: str = MARKED, corpus: list[str] | None = None, vocabulary: int = VOCABULARY):
    """Return a byte-level BPE tokenizer of at most `vocabulary` tokens. It encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus or [WORDS] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
    )


def make_tiny(architecture: str, seed: int = 0, **changes):
    """Return a random "qwen2", "mistral" or "gemma2" of 3 blocks, width 64 and about 150k parameters."""
    import torch
    import transformers

    shape = dict(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    if architecture == "gemma2":
        shape |= dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=64)
    config_class, model_class = {
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
        "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
    }[architecture]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config_class(**(shape | changes))).eval()


def make_multimodal(kind: str, seed: int = 0):
    """Return a random "mistral3" or "gemma3": a tiny text decoder of 2 blocks with an image encoder."""
    import torch
    import transformers

    shape = dict(hidden_size=32, intermediate_size=48, num_attention_heads=2)
    text = shape | dict(vocab_size=VOCABULARY, num_hidden_layers=2, num_key_value_heads=2, head_dim=16)
    image = shape | dict(num_hidden_layers=1, image_size=28, patch_size=14)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "mistral3":
            config = transformers.Mistral3Config(
                text_config=transformers.MistralConfig(**text),
                vision_config=transformers.PixtralVisionConfig(**image, head_dim=16),
                image_token_index=10,
            )
            return transformers.Mistral3ForConditionalGeneration(config).eval()
        config = transformers.Gemma3Config(
            text_config=transformers.Gemma3TextConfig(**text),
            vision_config=transformers.SiglipVisionConfig(**image),
            mm_tokens_per_image=4,
        )
        return transformers.Gemma3ForConditionalGeneration(config).eval()
