"""Proof: where recorded tensor, expression and reference meet.

Uses traces, rules and the reference; no torch, plots, HTTP.
"""

from convscope.proof.contributions import Contributions as Contributions
from convscope.proof.explanation import Explanation as Explanation
from convscope.proof.explanation import explain as explain
from convscope.proof.verification import verify as verify
from convscope.proof.verification_report import Mismatch as Mismatch
from convscope.proof.verification_report import StepReport as StepReport
from convscope.proof.verification_report import Verification as Verification
