"""Random histories of transitions against a reference model; see ``python -m tests.model -h``."""
