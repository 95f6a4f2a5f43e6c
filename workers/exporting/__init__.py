"""Results out of the archive into files. One read transaction, constant memory, and no file under its name that is not whole."""
