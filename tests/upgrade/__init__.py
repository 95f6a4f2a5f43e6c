"""Two releases on the same data: the last one and this one, side by side, forward and back.

The file `last_release` names the last release's commit, or its tag. Whoever makes a release writes it anew.
"""
