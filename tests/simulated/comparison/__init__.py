"""The model of a server and a real Valkey, side by side."""
