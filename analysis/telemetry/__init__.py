"""The sections of a summary about what was sampled beside the runs."""
