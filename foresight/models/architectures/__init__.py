"""Architectures that no library here has: torch modules of our own, named as their published checkpoints are.

No registry of models: a family in the folder above imports what it needs when it loads.
"""
