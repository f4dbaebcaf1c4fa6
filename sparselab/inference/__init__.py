"""Frozen language models under rules of sparse inference."""
