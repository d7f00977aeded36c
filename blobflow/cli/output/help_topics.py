"""The topics of `blobflow help`, which apply to all verbs. Text only."""

from __future__ import annotations

import msgspec

from blobflow.cli.exit_codes import EXIT_CODES


class Topic(msgspec.Struct, frozen=True):
    """One topic; `line` is what it is about."""

    line: str
    text: str


_REFERENCES = """\
An image in a registry:

  [docker://][HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]

  alpine                              docker.io/library/alpine:latest
  127.0.0.1:5000/team/app:1.4         a registry by its address
  quay.io/org/app@sha256:0123...      by digest: it never names anything else

The first part is a host if it has a dot or a colon, is `localhost`, or is an IPv6 address in brackets; else
the image is at docker.io. `localhost:5000` or `quay.io` alone names no image, which is an error; a word
without a dot, as `registry:2`, is an image of docker.io. With tag and digest, the digest says what is read,
the tag what is written.

An image in a file or folder:

  oci:DIR[:NAME]                      an OCI image layout
  oci-archive:FILE[:NAME]             the same in a tar
  docker-archive:FILE[:NAME]          what `docker save` writes

NAME is what the place calls the image, or @N for the N-th from 0; without it there must be only one. A path
ends at the first colon; `-` is standard input or output.

A place, as --from, --to and --edge take it, is HOST[:PORT][/PREFIX]: images keep their repository, behind
the prefix. Hosts at a loopback address are spoken to by http, all others by https; --plain-http HOST and
--tls HOST, or http://HOST and https://HOST in place of HOST, say otherwise.
"""

_SPECS = """\
A spec says in YAML which images go where. `blobflow config check FILE` tells all that is wrong with one, each
with its line, and asks no registry.

  # yaml-language-server: $schema=blobflow-spec.json
  version: 1
  defaults:
    source: docker.io                   where images without a host come from
    targets: [127.0.0.1:5000/mirror]    where all go, each HOST[/PREFIX]
    platforms: [linux/amd64, linux/arm64]
  images:
    - rancher/pause:3.1
    - quay.io/prometheus/node-exporter:v1.8.2
    - {image: team/app, source: registry.example.com/prod, tags: {newest: 5, by: created}}
    - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}
    - {image: library/alpine, tags: {semver: ">=3.18 <4", newest: 3}, rename: {tag: "{tag}-here"}}
    - {image: library/nginx:stable, backup: "{{tag}}-old", every: 6h}
  collect: [manifests/, charts/*/values.yaml]

The first line tells editors where the schema is: `blobflow config schema --of spec > blobflow-spec.json`.

Of an image:
  source       HOST[/PREFIX] where it comes from; a host in the name goes before that
  tags         tags or digests, or rules that choose among its tags when a run begins, each among those that
               the one before it left:
                 include, exclude   regular expressions that match a tag from end to end
                 anywhere: true     they may match any part of it
                 semver             a range of versions as npm has it, or several: ">=1.2 <2", "^3.1"
                 prereleases: true  1.2.0-rc.1 counts as any other version; else only where a range names it
                 newest: N          so many at most, by version, or with
                 by: created        by the date of their creation, which costs two requests a tag
  target       its repository behind each target's prefix
  rename       rules for the names there: {repository: ..., tag: ...}, each a template with {host}, {path},
               {name} and {tag}, or {match: EXPRESSION, replace: TEXT}
  backup       the tag that the image at a target gets before its tag names another: {{tag}}, {{digest}} (its
               first 12 digits), {{date}} and {{time}} may be in it. A backup that fails fails the image, and
               the tag stays as it is. --backup says it for all
  policy       the signature policy (containers' policy.json) that has to accept it before anything of it is
               put, relative to the spec's folder. --policy says it for all
  every        a span of time as 30m or 6h, or
  schedule     a cron expression as "0 3 * * *" or @daily: when `sync --every spec` mirrors it again
  platforms, index (auto, keep, prune, only), missing-platform (skip, fail: what becomes of an image that is
  for none of the platforms), referrers (auto, always, off)

All but image, tags, target and rename may be in `defaults` too, and an image's own go before those. A key
that is not known is an error.

`collect` has deployment files whose images are part of the set, under the defaults: a file, a folder or a
pattern each, relative to the spec's folder, or {path: ..., custom-resources: true}. What can't be told from
them is warned about. --images-from FILE takes such files beside a spec or a list; `blobflow images` shows
what they name, and pins it with --lock.

Instead of a spec: --from HOST --to HOST --images LIST, one repository:tag or repository@digest a line. If a
name there has a host, it must be --from's (in layouts and archives it is part of the name); --any-host drops
it. Without --from each line's own host is its source, docker.io where it has none. --from HOST/REPOSITORY
--to HOST without a list: all tags of the repository.

Expressions are RE2's, as Go's tools have them. The YAML of `skopeo sync` and regsync's regsync.yml choose
what they choose there: skopeo's expressions match anywhere, and its ranges leave prereleases out unless they
name one; regsync binds an expression with ^ and $, and takes prereleases as any version; signatures go along
where it says `referrers` or `digestTags`; `backup`, `interval` and `schedule` mean what they mean there. A
key that is not known, or chooses and can't be carried out, is an error; what else has no effect is told.
"""

_COMPRESSION = """\
The layers of docker archives are mostly bare tars. --compress says what they become at a target:

  gzip            read by everything, and fast: the default
  gzip-portable   read by everything; a quarter of the speed; the same digests on every machine
  zstd            smallest; older clients can't read it
  none            the tars as they are

What is compressed already stays as it is, in archives, layouts and registries.

On one machine a layer always becomes the same. From machine to machine its digest is the same with

  gzip            processors of one kind (x86-64 with SSE4.2, as nearly all have; x86-64 without; aarch64) and
                  one version of ISA-L, the library
  gzip-portable   any: zlib-ng compresses a sample first, and where that becomes another thing than elsewhere,
                  this choice can't be had (exit 2)
  zstd            one version of zstd; the number of threads makes no difference
  none            any: the digest is the layer's diff_id

So use gzip-portable where digests are compared, signed or written down, and the next load may run on another
kind of machine. Machines that share a store don't take what another kind of machine compressed, and a layer
is compressed anew once the library's version is another.
"""

_ACCESS = """\
`blobflow serve --access FILE` allows what the rules of a TOML file allow, and nothing else:

  [[allow]]
  who = ["ci-*", "ann"]                 logins of --htpasswd; * is any characters
  repositories = ["team/**", "tools/*"] * within one component of a name, ** across
  do = ["pull", "push"]                 pull, push, delete: none comes with another

  [[allow]]
  who = "anonymous"                     whoever comes without a login; every login may do it, too
  repositories = "public/**"
  do = "pull"

Each key takes one text or a list, and all three are needed. The order of rules means nothing. `who = "*"` is
every login. Who pushes images needs pull as well, and pull at the repository from which blobs are mounted.
The catalog and the page at / show what one may pull. /metrics shows every login how many requests, blobs and
bytes there are, and the hosts of upstreams, but no names of repositories. Without --htpasswd all are
anonymous.

What is denied is answered the same whether it exists or not: 401 without a login, 403 DENIED with one.

Clients send a login only to registries whose /v2/ asks for one. It asks if `anonymous` may do nothing, or if
the file begins with

  ask_for_login = true

Where anonymous may pull and logins may push, you want that: without it pushes are answered 401, and `login`
takes any password. podman and skopeo then still pull without a login; docker wants one wherever it is asked.

Changes take effect within seconds. A file that makes no sense changes nothing; stderr says why.
"""

_ARTIFACTS = """\
What hangs on an image are manifests that have it as their subject: signatures, SBOMs, attestations. They hang
on an index, on each image in it, and on each other, and go along with what they hang on.

  blobflow referrers REF              the tree of them, here or at a registry
  blobflow verify ...                 whether each target has those of its source
  blobflow attach REF FILE --artifact-type TYPE
                                      a file as one more of them

Found in the registry's own list (the referrers API); in the index that clients keep under the fallback tag
sha256-HEX, where there is none; in a layout's index.json; and under cosign's tags sha256-HEX.sig, .att and
.sbom. --referrers says when they are looked for (auto, always), or not at all (off).

Files are artifacts too, in the form that oras reads:

  blobflow push REF FILE[:TYPE]...    under a tag; a folder is packed
  blobflow pull REF -o DIR            back into files, as their titles say

An image has no files by name: `copy REF oci:DIR` keeps one as a layout, `copy REF docker-archive:FILE` is for
`docker load`, and `copy oci:DIR REF` or `load FILE --to HOST` bring it to a registry.
"""

_POLICIES = """\
A signature policy says who has to have signed what: containers' policy.json, as skopeo and podman read it.

  {
    "default": [{"type": "reject"}],
    "transports": {"docker": {
      "docker.io/acme": [{"type": "sigstoreSigned", "keyPath": "cosign.pub",
                          "signedIdentity": {"type": "matchRepository"}}],
      "docker.io/library": [{"type": "insecureAcceptAnything"}]
    }}
  }

The longest scope that an image is in counts, written out: alpine is in docker.io/library. matchRepository
fits what cosign signs, a digest in a repository; without signedIdentity the tag has to be signed too.

  copy, sync, plan, apply, save, load, export --policy FILE
  serve --upstream HOST --policy FILE
  policy: FILE                        in a spec, for all images or for one
  [signatures] policy = "FILE"        in config.toml, where nothing else says another

Images are judged at the source, before anything of them is put; one that is not accepted fails alone, with 9,
or 3 in a set. Keys and roots come from files, and no network is asked. `plan -v` and the report say which key
or identity signed. To verify signatures: pip install "blobflow[verify]".
"""

TOPICS = {
    "references": Topic("How images and places are named.", _REFERENCES),
    "specs": Topic("What a spec file says.", _SPECS),
    "artifacts": Topic("What hangs on an image, and files as artifacts.", _ARTIFACTS),
    "policies": Topic("Which signatures images have to have.", _POLICIES),
    "compression": Topic("What bare layers become, and which digests are equal.", _COMPRESSION),
    "access": Topic("Who may do what at a registry of `serve`.", _ACCESS),
    "exit-codes": Topic(
        "What the exit code of a verb means.",
        "".join(f"  {code:<4}{meaning}\n" for code, meaning in EXIT_CODES.items())
        + "\nVerbs about one image end with that image's own code, verbs about sets with 3.\n",
    ),
}
