"""Masked diffusion at work, in steps over whole texts [torch]."""
