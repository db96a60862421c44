"""Blocks: networks as lists of blocks, which are data: checked, planned as arithmetic, written as code, never executed.

Uses no torch; `models.networks` builds the network.
"""

from convscope.blocks.code import code
from convscope.blocks.kinds import KINDS
from convscope.blocks.plan import Plan, PlannedBlock, Problem, Repair, plan
from convscope.blocks.reading import Block, read, read_block
from convscope.blocks.templates import TEMPLATES, template

__all__ = [
    "KINDS",
    "TEMPLATES",
    "Block",
    "Plan",
    "PlannedBlock",
    "Problem",
    "Repair",
    "code",
    "plan",
    "read",
    "read_block",
    "template",
]
