"""One module for each group of commands. A module is loaded when one of its commands is called."""
