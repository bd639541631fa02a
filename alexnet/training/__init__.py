"""Learning, as section 5 of the paper states it: the schedule of rates, the trainer, checkpoints and logs. The update rule itself is
`kernels.momentum_step_`."""
