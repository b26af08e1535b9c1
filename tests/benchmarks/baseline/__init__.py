"""What Tallybook is compared with: the same server and database, the way it is usually done."""
