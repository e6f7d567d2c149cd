"""A deterministic network: the production cores over virtual links, NATs and clocks."""
