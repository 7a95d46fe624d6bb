"""What is done with a trained model: export, recommend, evaluate, compress."""
