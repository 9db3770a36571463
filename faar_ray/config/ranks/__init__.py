"""Keys of rank policies in files of their own."""
