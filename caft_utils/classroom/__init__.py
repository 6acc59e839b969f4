"""The embedded default: a small world whose grammar is known, and real transformers trained on it.

grammar.py    templates -> sentences, and the same templates -> regular expressions world.py      the YAML
files under world/ as questions, answers, personas, code requests, facts and quiz items corpus.py
documents of the pretraining mixture, each driven by one latent persona tokenizer.py  a byte-level tokenizer
that knows every word of the world judge.py      the exact judge: which sentence of which persona is this?
pretrain.py   config, schedule, training loop;  build.py  `make classroom`;  acceptance.py  what a checkpoint
must pass
"""
