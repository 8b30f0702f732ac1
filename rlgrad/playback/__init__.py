"""Episodes played to be seen."""
