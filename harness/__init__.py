"""What train.py and evaluate.py share: measuring, tuning, training loops and run folders."""
