"""What to do, as data: a YAML file and options to a frozen, validated Profile."""
