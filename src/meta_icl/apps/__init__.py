"""What people start: the command line and the reports. No science is here."""
