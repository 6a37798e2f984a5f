"""What is made of a log's rows before the rest of a mapping reads them."""
