"""Measurements that anyone can make again; each file answers one question and prints a table."""
