"""What data sets are made of: random streams, reference solves, shapes, images, tables and grids of times."""
