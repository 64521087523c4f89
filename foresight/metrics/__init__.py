"""Measures on plain arrays, each with its source, its null and its interval."""
