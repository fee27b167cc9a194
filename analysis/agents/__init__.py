"""The sections of a summary about agents: speedup, overlap, contention and its causes."""
