"""A folder that is no pack: it declares no nodes."""

VERSION = "1.0.0"
