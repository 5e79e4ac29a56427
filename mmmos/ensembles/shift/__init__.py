"""How the clips of other sets differ from those that heads learn from, without their scores, and what helps then."""
