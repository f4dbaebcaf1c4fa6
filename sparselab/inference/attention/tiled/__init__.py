"""Tiled attention of a frozen network [torch]."""
