"""What is wrong with a connection, and the one command that mends it: ``ucl doctor``.

It looks from near to far: at the home folder, at the files, at the identity in use, at what runs have left, then at the
way to UCL and at what UCL says. It changes nothing, takes no lock and signs nothing. What a fault nearer by explains is
not told as another fault.
"""

from ucl_helpers.operate.doctor.examination import diagnose, diagnose_home, diagnose_way
from ucl_helpers.operate.doctor.findings import Diagnoses, Diagnosis, Finding

__all__ = ["Diagnoses", "Diagnosis", "Finding", "diagnose", "diagnose_home", "diagnose_way"]
