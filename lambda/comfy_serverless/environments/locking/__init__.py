"""From a build file to its lock: every pack to an archive, every library to a file, or why not."""
