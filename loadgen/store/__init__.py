"""Bytes that survive a crash: records while they are made, locks, files written whole."""
