"""Summaries for people: text for a terminal, a page for a browser."""
