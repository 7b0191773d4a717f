"""Where the configuration of one or many nodes comes from: a file, a directory, an HTTPS URL, or a store."""
