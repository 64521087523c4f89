"""What an experiment measures, from arrays in memory to rows of its report."""
