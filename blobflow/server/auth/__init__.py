"""Authentication and authorization: logins, and what each login may do."""
