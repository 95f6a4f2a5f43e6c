"""Commands that show what was answered, and what they share: filters as options, tables, bars and drawings."""
