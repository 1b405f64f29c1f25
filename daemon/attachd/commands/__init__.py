"""The commands, a module a family. ``cli`` puts them together; none knows another."""
