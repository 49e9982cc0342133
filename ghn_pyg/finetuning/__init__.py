"""Training networks, from a prediction or from random values."""
