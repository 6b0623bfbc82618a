"""The command line: verb -> function."""
