"""Tokens that leave a block through the residual: hooks, allocations, routers."""
