"""Layers that know tensors only: encodings, encoders, decoders."""
