"""The gate arithmetic, faster: one folder an op, each with its reference beside it."""
