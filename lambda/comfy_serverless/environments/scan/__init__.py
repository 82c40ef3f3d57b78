"""From what people have (an install, a snapshot, a workflow) to what a build file says of it."""
