"""Which directions to ablate: as a person ticked them, or by the relevance of their explanations."""
