"""Where settings come from: options, the environment, the configuration file and the defaults, in this order."""
