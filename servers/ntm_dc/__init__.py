"""The direction coordinator: registry of its domain's nodes, directions, DNS for its zone."""
