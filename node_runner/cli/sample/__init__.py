"""`node-run sample`: what a trained model makes, as numbers, pictures and films."""
