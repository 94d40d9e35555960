"""The certificate authority of an installation: enrolment, renewal lineage, trust bundle."""
