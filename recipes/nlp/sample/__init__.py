"""The sample set of tickets: written by hand, put together from a seed."""
