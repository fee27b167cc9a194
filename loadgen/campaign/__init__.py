"""Many runs in one directory: arms, blocks, order, resuming; several campaigns in turns."""
