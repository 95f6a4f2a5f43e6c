"""Surveys as the console shows them: their graphs, what is proved of them, and a phone beside."""
