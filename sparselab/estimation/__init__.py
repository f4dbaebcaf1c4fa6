"""Estimators and online learners on problems with a known answer."""
