"""Select the directions to ablate, by the relevance of explanations or by the texts where they are active."""
