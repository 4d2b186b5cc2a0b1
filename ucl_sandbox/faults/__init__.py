"""The faults of the sandbox: their catalogue, the plans that choose them, and their effects on answers."""
