"""Names and addresses: who knows the addresses of a name, and the name of an address."""
