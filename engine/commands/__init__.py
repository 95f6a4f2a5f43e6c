"""The subcommands of `parley` that need nothing but a survey's file, and what all subcommands print with."""
