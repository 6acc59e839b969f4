"""Select the directions to ablate, by the relevance of their explanations or by the texts where they are active."""
