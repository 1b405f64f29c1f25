"""Sources: where deliveries come from. One module a source; none imports another."""
