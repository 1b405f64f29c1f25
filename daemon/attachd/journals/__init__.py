"""Journals: what is known of contacts, kept over restarts. One module a store; none imports another."""
