"""The machine: blobs we hold, downloads in flight, and who follows them."""
