"""Helpers that know nothing of networks: files, messages, configurations, optional and private imports."""
