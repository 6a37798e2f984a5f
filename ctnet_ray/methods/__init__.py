"""What a method is: which model, what initialises what, which days; plain data below the configuration."""
