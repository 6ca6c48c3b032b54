"""What bench/pipeline.py is put together from."""
