"""Activation rules at work in a frozen network [torch]."""
