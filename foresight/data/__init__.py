"""Data sets: what a folder, a benchmark or a generator holds, sample by sample."""
