"""Networks: their options, their model specs in closed form, and how they are built and filled."""
