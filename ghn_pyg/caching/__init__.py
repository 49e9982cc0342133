"""Graphs that are kept on disk, found by a hash of all that they depend on."""
