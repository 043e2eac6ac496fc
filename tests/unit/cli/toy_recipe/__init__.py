"""A recipe small enough to train in a second: the command line's tests run it."""
