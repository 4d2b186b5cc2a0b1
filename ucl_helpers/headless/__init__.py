"""Notebooks run by papermill: engine, kernel, parameters, outcome, and the search for secrets."""
