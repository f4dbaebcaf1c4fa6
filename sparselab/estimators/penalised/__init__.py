"""Regressors that learn their penalties."""
