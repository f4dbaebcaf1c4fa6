"""Decoding at work, with a cache of keys and values [torch]."""
