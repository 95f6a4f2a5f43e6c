"""The pictures that README.md shows of the console, made from a run of all of Parley: `make pictures`."""
