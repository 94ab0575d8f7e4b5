"""`node-run robustness`: how runs bear noise on their inputs."""
