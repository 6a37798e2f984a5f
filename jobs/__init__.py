"""What people run: parse, call one function."""
