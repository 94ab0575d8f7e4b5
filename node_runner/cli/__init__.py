"""`node-run`: a file a command, or a folder where it takes several; what commands share stands beside them."""
