"""Designs of which the worse half is shown with its scores, and the score of any other one."""
