"""Named workflows on the command line: pushed, shown, moved, run by their inputs' names, and made a typed client."""
