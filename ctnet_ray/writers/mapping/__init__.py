"""What a mapping file says, key by key: checked, with errors that name its keys."""
