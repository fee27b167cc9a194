"""Arrays to numbers. Knows no manifest, no record and no file."""
