"""From a data set to rows, shards and their text. numpy only: nothing here imports Paddle."""
