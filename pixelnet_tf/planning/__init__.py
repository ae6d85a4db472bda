"""From a look at a study and at the machine to a configuration, each value with its reason."""
