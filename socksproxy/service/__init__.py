"""``twistd socks`` as a service: listeners, signals and reload."""
