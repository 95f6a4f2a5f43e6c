"""A soak: everything that can go wrong goes wrong for minutes, and then the ledger must be right."""
