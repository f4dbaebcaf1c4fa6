"""Surrogates of a score that was seen on a few designs only, their sharpness, and searches that climb them."""
