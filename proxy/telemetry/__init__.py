"""What the outside may know."""
