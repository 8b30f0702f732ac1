"""Closed forms: the gradient of each sample as factors, layer by layer."""
