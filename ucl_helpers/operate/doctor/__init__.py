"""``ucl doctor``: find out what is wrong with a connection, and the one command that repairs it.

It examines from near to far: the home folder, the files, the identity in use, what runs have left, then the way to UCL
and UCL's answer. It changes nothing, takes no lock and signs nothing. If one fault explains another, it reports only
the first.
"""

from ucl_helpers.operate.doctor.examination import diagnose, diagnose_home, diagnose_way
from ucl_helpers.operate.doctor.findings import Diagnoses, Diagnosis, Finding

__all__ = ["Diagnoses", "Diagnosis", "Finding", "diagnose", "diagnose_home", "diagnose_way"]
