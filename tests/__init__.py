"""Claims about Parley, and what they need."""
