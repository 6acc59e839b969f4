"""The experiments behind the course's figures, as data and functions that a claim or a script can run."""
