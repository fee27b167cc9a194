"""Servers: which one answers, how to reach it, and every call to one outside the measured path."""
