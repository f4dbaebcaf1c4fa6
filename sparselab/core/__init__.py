"""Values that everything stands on: sparsities, options, errors, registries, seeds. Imports nothing of ours."""
