"""The engine: heads of one kind trained as a stack, fed batch by batch, in groups that suit the machine."""
