"""Sweeps: the spec, the search, the schedule, the trainable, the ledger, tracking and the command line."""
