"""What is asked: one file per experiment, and the command line."""
