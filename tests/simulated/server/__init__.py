"""A model of one Redis server, in this process: our server-side functions run on it unmodified, by a clock that is given.

Law: it answers what Valkey answers, to the byte and the error, or raises NotImplementedError.
"""
