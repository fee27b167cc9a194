"""The sections of a summary that every campaign has."""
