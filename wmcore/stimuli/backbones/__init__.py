"""Frozen image networks, run once per image bank. One module per kind."""
