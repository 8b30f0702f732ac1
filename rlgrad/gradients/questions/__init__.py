"""A question to a model: which output, of which inputs, with respect to which weights."""
