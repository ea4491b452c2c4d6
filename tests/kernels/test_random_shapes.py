"""What a night does 10,000 times (fuzz.py), 50 times."""

from fuzz import run


def test_no_random_shape_is_wrong_beyond_the_bound(kernels):
    run(kernels, 50)
