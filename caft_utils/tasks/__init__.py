"""Tasks: rows to fine-tune on, questions to ask afterwards, and a judge; one file a task."""
