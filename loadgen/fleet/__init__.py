"""The engine on many processes of one host: `local` runs several shares."""
