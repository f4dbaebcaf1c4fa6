"""Graphs, data that follow them, and scores of a found one."""
