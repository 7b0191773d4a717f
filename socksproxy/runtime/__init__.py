"""What every room needs of the machine it runs on: threads, and queues that are fair."""
