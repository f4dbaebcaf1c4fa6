"""The commands: `run.py`'s application and `sparselab`'s."""
