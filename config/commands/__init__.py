"""The subcommand of `parley` that needs nothing but the samples in this package's folder."""
