"""Parts that several test files use: small models and environments, updates by hand, short runs."""
