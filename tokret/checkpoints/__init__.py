"""What lies in a run's checkpoints, and which of them to keep."""
