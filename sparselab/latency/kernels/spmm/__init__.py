"""The project's own product of a sparse matrix with planes of pixels."""
