"""What ends a run after its method: one file each, picked by its name; the settings make one more stage."""

INTERFACE = "Finish"
