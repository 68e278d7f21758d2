"""Tensors in, tensors out: the frontend, the models and their kernels."""
