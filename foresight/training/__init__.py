"""Training loops that can be killed and go on, bit for bit."""
