"""Analyses: one file per kind, each a pure function of a recording."""
