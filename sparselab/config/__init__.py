"""From overrides and YAML to a checked config. Imports no torch."""
