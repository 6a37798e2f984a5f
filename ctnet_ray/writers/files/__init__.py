"""Reading the files of a log, block by block, every line accounted for."""
