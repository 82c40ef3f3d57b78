"""How an endpoint scales, by arithmetic: see docs/scaling.md."""
