"""hubpin: a caching mirror of the Hugging Face Hub that locks versions."""
