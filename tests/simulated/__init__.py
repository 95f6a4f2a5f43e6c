"""The whole protocol in one process and in virtual time: README.md says how."""
