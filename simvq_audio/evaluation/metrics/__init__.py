"""The metrics of this package, a file for each family."""
