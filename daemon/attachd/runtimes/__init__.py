"""Runtimes: ways to hand a participant to its bot. One module a way; none imports another."""
