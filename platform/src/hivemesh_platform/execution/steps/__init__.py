"""From a claimed row to a worker and back: which row next, its request, its pages, its end."""
