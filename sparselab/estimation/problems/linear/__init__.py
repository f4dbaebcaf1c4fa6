"""Planted sparse linear models: laws, designs and draws."""
