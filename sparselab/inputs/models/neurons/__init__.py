"""Spiking neurons, one module for each kind of membrane."""
