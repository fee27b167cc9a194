"""Two sides of runs to a comparison."""
