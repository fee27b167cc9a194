"""Short experiments with a result of their own."""
