"""The workshop: everything that is done to a model, one verb a file."""
