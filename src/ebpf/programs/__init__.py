"""Live programs: run, pin, inspect, attach."""
