"""Training: the trial spec, the loop, and checkpoints."""
