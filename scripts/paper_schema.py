"""Writes configs/paper/schema.json, which editors read. A test says when it is out of date."""

from pathlib import Path

from sparselab.config.members import CONFIGS
from sparselab.experiments.tables import json_schema
from sparselab.storage import atomic

if __name__ == "__main__":
    print(atomic.write_text(Path(CONFIGS) / "paper" / json_schema.NAME, json_schema.text()))
