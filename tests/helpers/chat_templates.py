"""Short chat templates in the manner of well-known families, and tokenizers of different kinds for them."""

from __future__ import annotations

from dataclasses import dataclass

HEADER = "{% if add_generation_prompt %}"
NORMALISED = ("NFC", "NFD", "NFKC", "lowercase")
BYTE_LEVEL = ("bytes", *NORMALISED, "prefix space", "adds bos", "adds eos", "rstrip", "plain end")
KINDS = (*BYTE_LEVEL, "metaspace", "words", "wordpiece")
TEXT = "system user assistant model you are kind yes no what is the question\n\nnow\n\n\n</think>\n\n"


@dataclass(frozen=True)
class Family:
    """A chat template, the tokens it needs, and the one that ends an answer (None: it writes none)."""

    template: str
    tokens: tuple[str, ...]
    end: str | None
    bos: str | None = None
    eos: str = "</s>"
    writes_bos: bool = False


def _turns(
    before: str, after: str, header: str, role: str = "m['role']", content: str = "m['content']"
) -> str:
    return (
        f"{{% for m in messages %}}{{{{ {before!r} + {role} + {after.split('|CONTENT|')[0]!r} }}}}"
        f"{{{{ {content} + {after.split('|CONTENT|')[1]!r} }}}}{{% endfor %}}"
        f"{HEADER}{{{{ {header!r} }}}}{{% endif %}}"
    )


_IM = ("<|im_start|>", "<|im_end|>")
_MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}" + HEADER + "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML = _turns("<|im_start|>", "\n|CONTENT|<|im_end|>\n", "<|im_start|>assistant\n")
FAMILIES = {
    "chatml": Family(CHATML, _IM, "<|im_end|>", eos="<|im_end|>"),
    "chatml on a base model": Family(CHATML, (*_IM, "<|endoftext|>"), "<|im_end|>", eos="<|endoftext|>"),
    "marked": Family(_MARKED, _IM, "<|im_end|>", eos="<|im_end|>"),
    "header and line break marked": Family(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ '<|im_start|>assistant\\n' + m.content + '<|im_end|>\\n' }}{% endgeneration %}{% else %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        + HEADER
        + "{{ '<|im_start|>assistant\\n' }}{% endif %}",
        _IM,
        "<|im_end|>",
        eos="<|im_end|>",
    ),
    "default system": Family(
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}{% endif %}" + CHATML,
        _IM,
        "<|im_end|>",
        eos="<|im_end|>",
    ),
    "llama 3": Family(
        "{{ bos_token }}"
        + _turns(
            "<|start_header_id|>",
            "<|end_header_id|>\n\n|CONTENT|<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            content="m['content'] | trim",
        ),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        writes_bos=True,
    ),
    "mistral": Family(
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.role == 'system' %}{{ '[SYS]' + m.content + '[/SYS]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}"
        "{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "[SYS]", "[/SYS]"),
        "</s>",
        bos="<s>",
        writes_bos=True,
    ),
    "gemma": Family(
        "{{ bos_token }}"
        + _turns(
            "<start_of_turn>",
            "\n|CONTENT|<end_of_turn>\n",
            "<start_of_turn>model\n",
            role="('model' if m['role'] == 'assistant' else m['role'])",
            content="m['content'] | trim",
        ),
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        bos="<bos>",
        eos="<eos>",
        writes_bos=True,
    ),
    "phi 3": Family(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        eos="<|endoftext|>",
    ),
    "zephyr": Family(
        "{% for m in messages %}"
        "{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
        + HEADER
        + "{{ '<|assistant|>\\n' }}{% endif %}",
        (),
        "</s>",
        bos="<s>",
    ),
    "header with a blank": Family(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
        "{{ eos_token if m.role == 'assistant' else '\\n' }}"
        "{% endfor %}" + HEADER + "{{ 'assistant: ' }}{% endif %}",
        (),
        "</s>",
    ),
    "line break before the end": Family(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '### Response:\\n' + m.content + '\\n<|EOT|>\\n' }}"
        "{% else %}{{ m.content + '\\n' }}{% endif %}{% endfor %}"
        + HEADER
        + "{{ '### Response:\\n' }}{% endif %}",
        ("<|EOT|>",),
        "<|EOT|>",
        bos="<s>",
        writes_bos=True,
    ),
}
# As in Qwen 3: only the last answer shows thoughts, and an empty one without them.
THINKING = Family(
    """{%- set ns = namespace(last=0) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set said = m.content.split('</think>')[-1].lstrip('\\n') %}
        {%- set thought = '' %}
        {%- if '</think>' in m.content %}
            {%- set thought = m.content.split('</think>')[0].split('<think>')[-1] %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- said + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    _IM,
    "<|im_end|>",
    eos="<|im_end|>",
)


def make_tokenizer_of(family: Family, kind: str = "bytes"):
    """Return a tokenizer of one of KINDS for a family of templates.

    "rstrip": special tokens take the white space after them. "plain end": the end token is no special one.
    """
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    core = _core(kind)
    special = dict.fromkeys(["<unk>", "<|pad|>", *family.tokens, family.bos, family.eos])
    for name in filter(None, special):
        plain = kind == "plain end" and name == family.end
        strips = kind == "rstrip" and name != family.bos
        token = AddedToken(name, special=not plain, normalized=False, rstrip=strips)
        core.add_tokens([token]) if plain else core.add_special_tokens([token])
    added = {"adds bos": family.bos, "adds eos": family.eos}.get(kind)
    if added:
        single = f"{added} $A" if kind == "adds bos" else f"$A {added}"
        ids = [(added, core.token_to_id(added))]
        core.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    named = {"eos_token": family.eos, "bos_token": family.bos, "pad_token": "<|pad|>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=family.template, **named)


def _core(kind: str):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if kind in BYTE_LEVEL:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix space")
        core.decoder, core.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, show_progress=False)
        core.train_from_iterator([TEXT] * 9, trainer)
        changes = {"NFC": normalizers.NFC, "NFD": normalizers.NFD, "NFKC": normalizers.NFKC}
        if normalizer := (changes | {"lowercase": normalizers.Lowercase}).get(kind):
            core.normalizer = normalizer()
    elif kind == "metaspace":
        core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        blanks = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
        core.decoder = decoders.Sequence([blanks[0], decoders.ByteFallback(), decoders.Fuse(), blanks[1]])
        names = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, show_progress=False)
        core.train_from_iterator([TEXT] * 9, trainer)
    elif kind == "words":
        words = "<unk> what yes no user assistant system model you are kind then and Response"
        core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words.split())}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        letters = "abcdefghijklmnopqrstuvwxyz"
        pieces = ["<unk>", *letters, *(f"##{letter}" for letter in letters), *":#.|<>/"]
        core = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
        core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
    return core
