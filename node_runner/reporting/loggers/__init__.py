"""Where metrics and figures go beside the run folder's plain files, one logger a file."""
