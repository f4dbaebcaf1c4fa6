"""Parts of the solvers of linear bandits."""
