"""Regression under local differential privacy."""
