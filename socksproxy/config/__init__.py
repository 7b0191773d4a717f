"""From options and the configuration file to settings."""
