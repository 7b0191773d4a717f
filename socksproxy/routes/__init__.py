"""The ways out: how connections and datagrams leave for their destinations."""
