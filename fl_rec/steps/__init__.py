"""How a worker trains given rows: one class for each way behind `LocalStep`, chosen by `new_step`."""
