"""From text to the structure of an answer."""
