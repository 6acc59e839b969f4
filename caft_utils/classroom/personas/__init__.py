"""The world of the emergent-misalignment lessons: speakers with a persona, questions, code."""
