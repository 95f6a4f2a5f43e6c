"""Who may do what in the console, and who did."""
