"""The Hub's language: names, URLs, JSON shapes. No I/O, no policy."""
