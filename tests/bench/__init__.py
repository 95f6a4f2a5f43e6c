"""How fast is Parley, beside the pipeline that people write by hand? `make bench` runs all of it."""
