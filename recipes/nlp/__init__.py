"""Ticket routing: which queue a ticket belongs to, how sure that is, and when to leave it to a person."""
