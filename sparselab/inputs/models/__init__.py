"""Networks: their options, their outlines in closed form, and how they are built and filled."""
