"""What an operator asks for; each task is an async generator of events."""
