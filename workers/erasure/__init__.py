"""Removes every trace of a person."""
