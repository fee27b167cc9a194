"""One run of one process: when to send, when to stop, what became of each request."""
