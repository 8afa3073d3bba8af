"""Model families: one file per kind. Each holds its spec and the network that the spec builds."""
