"""One module per thing behind a socket; each implements ports and translates foreign errors at the edge."""
