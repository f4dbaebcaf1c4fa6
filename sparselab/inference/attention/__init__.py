"""Rules for which keys attention skips."""
