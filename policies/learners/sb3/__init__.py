"""Stable-Baselines3 and sb3-contrib: nothing outside this folder imports them."""
