"""What an image has: it is looked at as its build ends, and whenever somebody asks."""
