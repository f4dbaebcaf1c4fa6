"""The arithmetic of spiking neurons. Imports torch."""
