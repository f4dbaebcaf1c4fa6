"""Ids, records, checkpoints and tensors on disk."""
