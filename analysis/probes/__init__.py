"""The results of the experiments in loadgen.probes."""
