"""Families of architectures that GHNs are meta-trained on."""
