"""Trains the paper's model: `python -m autograder.reference.trainer RECIPE --data FOLDER --out FOLDER`.

`recipe` says what to train, `images` reads data, `stream` decides which image comes when, `schedule` sets the
learning rate, `parallel` spreads the work over processes, `checkpoint` keeps it, `loop` puts them together.

All randomness is a function of the seed and of a place in the run, never of a state that moves on: the order
of the images of (seed, epoch), a crop of (seed, epoch, image), dropout of (seed, step, pass, process). So a
checkpoint needs no random states, and the number of loading processes changes nothing.
"""
