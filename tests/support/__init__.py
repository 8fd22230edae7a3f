"""What tests share: clients, processes, the store's fake, agents, waiting."""
