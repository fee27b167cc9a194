"""Records in, estimates and reports out: no network, no clock, no event loop."""
