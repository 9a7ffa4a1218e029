"""The functions behind the documented commands, every argument of which a `.gin` file can set."""
