"""The metrics that come with this package, one file a family."""
