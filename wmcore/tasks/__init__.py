"""Tasks: one file per kind. Each holds its spec and the task that the spec builds."""
