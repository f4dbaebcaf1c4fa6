"""Rules for which inputs of a linear layer are zero."""
