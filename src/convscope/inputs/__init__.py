"""Inputs: from files, data set images and arrays to what a model is called with, with notes on what was done."""
