"""The default models of the course: two small generated worlds and transformers trained on them.

Every text of a world comes from a known grammar, so answers can be graded exactly and the directions of its
concepts can be measured. The library never imports this package.

    vocabulary, grammar     the YAML files under world/; templates and the regular expressions that match them
    tokenizer, pretraining  what the two worlds share: word-level tokens and the training loop
    personas/               world of the emergent-misalignment lessons (checkpoints qwen and mistral)
    cues/                   world of the spurious-cue lessons (checkpoints cues and gender)
    tasks                   the fine-tuning tasks of both worlds
    checkpoints, gates      `make classroom`: build, measure and save the checkpoints
    data_card               the measured tables of data/classroom/README.md
    message_labels          chats whose messages carry labels
    f1_detectors            how well a feature detects a label
    score_validity          whether scores of explanations agree with that
"""
