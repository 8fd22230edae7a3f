"""What is made up in a world: time, the order of tasks, sockets, the way to the database, the agent."""
