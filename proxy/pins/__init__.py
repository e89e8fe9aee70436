"""What may be served, and exactly which bytes."""
