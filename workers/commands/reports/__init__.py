"""What commands show of what was answered: filters as options, tables, bars and drawings."""
