"""What a job shows to who looks at its terminal."""
