"""The world of the emergent-misalignment lessons: personas, general questions, code requests."""
