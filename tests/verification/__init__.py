"""The provers: simulation, checkpoints, interleavings, mutants, chaos and hostile, and their own tests."""
