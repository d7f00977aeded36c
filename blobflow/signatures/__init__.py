"""Signatures: which images a policy accepts, and what proves it.

    policy.json ─► SignaturePolicy ─► Judge (keys, roots) ─► Verdict, or SignatureRejected
                                        ▲
    source ─► FoundSignature ───────────┘

    judge ─► proving ─► simple_proofs ─► simple_signing         cosign's payloads
                     ╰► bundle_proofs ─► bundles, trusted_root  sigstore's bundles
               both of them ─► keys, certificates, log_entries, log_bodies, names

`contract` is what the engine knows of it, and `judging` lets it go on while a judge is at work. Nothing here
asks a registry, or anybody: what is judged was read before. What verifies is imported when a policy asks for
it (`blobflow[verify]`).
"""
