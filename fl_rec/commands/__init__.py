"""What is only on the command line: a project's runs, their comparison, the keys, the doctor, shell completion."""
