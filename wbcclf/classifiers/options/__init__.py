"""Small objects that parameters of CNNClassifier hold; nothing here needs torch."""
