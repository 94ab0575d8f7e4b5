"""`node-run compare`: runs side by side, as a table and as a figure, which a sweep ends in too."""
