"""Authentication at registries: challenges, tokens, credentials.

host_authorization  what a host is asked with, and who answers its challenges, as its client sees it
authenticator       the registry's own: Basic and Bearer, tokens kept, and what is said of a refused login
redirect_targets    a registry that a host sends us to: tokens for anybody, never a login
challenges  tokens  WWW-Authenticate; what a token server is asked and answers. Pure
credentials         a login, as docker's files, helpers and arguments have it
credential_store  credential_helpers      where logins are looked for and kept
"""
