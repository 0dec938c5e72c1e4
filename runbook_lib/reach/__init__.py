"""How to get there: one module a system, each the only importer of its driver."""
