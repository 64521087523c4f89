"""Where it runs: pools, images, schedules."""
