"""From descriptors to weights: state, step, optimiser, sharding, checkpoints."""
