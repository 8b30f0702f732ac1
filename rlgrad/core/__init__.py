"""The ground floor: errors, checks, settings from files, names, and what TensorFlow and Keras keep private."""
