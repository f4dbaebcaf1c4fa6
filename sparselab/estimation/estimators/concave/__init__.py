"""Folded concave penalties (SCAD, MCP) beside l1, and the first-order and coordinate methods that fit them."""
