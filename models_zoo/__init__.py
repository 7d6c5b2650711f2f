"""Small networks, trained on data that ships with the package, to align and merge."""
