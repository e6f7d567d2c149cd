"""Parsers under hostile input. See targets.py for what must hold, fuzz.py for searching."""
