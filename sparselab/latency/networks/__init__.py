"""Decoder-only transformers as kernels see them: matrices, norms and tables of one token's way through the network."""
