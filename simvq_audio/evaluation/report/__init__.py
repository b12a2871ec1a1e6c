"""Reports: a page, files and pictures."""
