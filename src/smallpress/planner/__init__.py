"""What fits, how long, how much money: memory, time, energy and cost of a run before it starts."""
