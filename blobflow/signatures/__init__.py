"""Signatures: which images a policy accepts, and what proves it.

    policy.json ─► SignaturePolicy ─► Judge (keys, roots) ─► Verdict, or SignatureRejected
                                        ▲
    source ─► FoundSignature ───────────┘

    judge ─► proving ─► simple_proofs ─► simple_signing         cosign's payloads
                     ╰► bundle_proofs ─► bundles, trusted_root  sigstore's bundles
               both of them ─► keys, certificates, log_entries, log_bodies, names

`finding` knows the forms of signatures among what refers to an image, and reads them at its source. Whatever
else is here asks nobody: what is judged was read before. `policy_file`, `requirements`, `scopes` and
`signed_identity` are what a policy says, and `trust` its keys, read. `contract` is what the engine knows of
it all, and `judging` lets it go on while a judge is at work. What verifies is imported when a policy asks for
it (`blobflow[verify]`).
"""
