"""Reference solvers of tasks on networks: `fit(view, targets)`, `predict(view)`. A file for each family."""
