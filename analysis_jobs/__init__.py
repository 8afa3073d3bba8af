"""Ray Data jobs over stimuli and checkpoints: render, record, analyse, compare, report. Imports wmcore only."""
