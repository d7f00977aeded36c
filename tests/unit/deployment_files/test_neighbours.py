"""Further files of each kind, and of tools whose files are alike."""

from __future__ import annotations

import pytest

from blobflow.deployment_files.formats import Reading
from blobflow.deployment_files.source_text import SourceText

HEX = "a" * 64
# What it is: the file's name, its text, and what it names as `line NAME` or `line ? WHAT STANDS THERE`.
CASES = {
    "Argo CD's overrides of Helm and Kustomize": (
        "app.yaml",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    helm:\n"
        "      values: |\n"
        "        image:\n          repository: quay.io/a/b\n          tag: v1\n    kustomize:\n"
        "      images:\n"
        "        - quay.io/a/c:v3\n        - old=quay.io/a/d:v4\n",
        ["8 quay.io/a/b:v1", "12 quay.io/a/c:v3", "13 quay.io/a/d:v4"],
    ),
    "pictures and disks in places that may be images": (
        "pod.yaml",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: a/b\n    env:\n"
        "    - {name: LOGO_IMAGE, value: img/logo.png}\n    - {name: ICON_IMAGE, value: icon.svg}\n"
        "    - {name: DISK_IMAGE, value: disks/a.qcow2}\n    - {name: IMAGE_FORMAT, value: image/webp}\n"
        "    - {name: IMAGE_SIZE, value: 10/20}\n    - {name: SIDE_IMAGE, value: a/side.img:1}\n",
        ["5 docker.io/a/b:latest", "12 docker.io/a/side.img:1"],
    ),
    "a site's pictures": ("_config.yml", "logo_image: assets/logo.png\nimage: /a/b.jpg\n", []),
    "a chart's tags that YAML reads as numbers": (
        "values.yaml",
        "a:\n  image: {repository: a/octal, tag: 0123}\nb:\n  image: {repository: a/zeros, tag: 0189}\n"
        "c:\n  image: {repository: a/power, tag: 12e3}\nd:\n  image: {repository: a/under, tag: 1_000}\n"
        "e:\n  image: {repository: a/quoted, tag: '0123'}\nf:\n  image: {repository: a/day, tag: 20240102}\n"
        "g:\n  image: {repository: a/hash, tag: 12e3f}\nh:\n  image: {repository: a/hex, tag: 0x1f}\n"
        "i:\n  image: {repository: a/same, tag: 1.25}\n",
        [
            "10 docker.io/a/quoted:0123",
            "12 docker.io/a/day:20240102",
            "14 docker.io/a/hash:12e3f",
            "18 docker.io/a/same:1.25",
            "2 ? a/octal + 0123",
            "4 ? a/zeros + 0189",
            "6 ? a/power + 12e3",
            "8 ? a/under + 1_000",
            "16 ? a/hex + 0x1f",
        ],
    ),
    "a kustomization's tag that YAML reads as a number": (
        "kustomization.yaml",
        "images:\n- {name: a/b, newTag: 1.10}\n- {name: a/c, newTag: '1.10'}\n",
        ["3 docker.io/a/c:1.10", "2 ? a/b + 1.10"],
    ),
    "Ansible's tags that YAML reads as numbers": (
        "play.yml",
        "- hosts: all\n  vars:\n    web_image: a/web\n    web_image_tag: 1.0\n  tasks:\n"
        "  - docker_image: {name: a/b, tag: 1.10, source: pull}\n"
        "  - docker_image: name=a/c tag=1.10 source=pull\n",
        ["7 docker.io/a/c:1.10", "3 ? a/web + 1.0", "6 ? a/b + 1.10"],
    ),
    "Compose builds one that is never pulled": (
        "compose.yaml",
        "services:\n  a: {image: a/built, build: ., pull_policy: build}\n  b: {image: a/either, build: .}\n",
        ["3 docker.io/a/either:latest"],
    ),
    "GitLab's templates, with the variables of the jobs that extend them": (
        ".gitlab-ci.yml",
        ".t:\n  image: a/t:$V\n  variables: {V: '1'}\n"
        "a: {extends: .t, variables: {V: '2'}, script: [x]}\n"
        ".same:\n  image: a/s:$V\n  variables: {V: '1'}\nb: {extends: .same, script: [x]}\n"
        ".c: &c\n  image: a/c:$V\n  variables: {V: '1'}\nc: {<<: *c, variables: {V: '2'}, script: [x]}\n",
        ["6 docker.io/a/s:1", "2 ? a/t:$V", "10 ? a/c:$V"],
    ),
    "GitLab's variables that rules and a matrix set": (
        ".gitlab-ci.yml",
        "variables: {V: '1', W: '1', X: '1'}\n"
        "a:\n  image: a/a:$V\n  parallel: {matrix: [{V: ['2', '3']}]}\n  script: [x]\n"
        "b:\n  image: a/b:$W\n  rules: [{if: $CI, variables: {W: '2'}}]\n  script: [x]\n"
        "c:\n  image: a/c:$X\n  script: [x]\n",
        ["11 docker.io/a/c:1", "3 ? a/a:$V", "7 ? a/b:$W"],
    ),
    "a cluster of kind": (
        "kind.yaml",
        f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n"
        f"- image: kindest/node:v1@sha256:{HEX}\n",
        [f"4 docker.io/kindest/node:v1@sha256:{HEX}"],
    ),
    "zarf": (
        "zarf.yaml",
        "kind: ZarfPackageConfig\nmetadata: {name: x}\ncomponents:\n"
        "  - images: [ghcr.io/a/b:1, docker.io/nginx]\n",
        ["4 ghcr.io/a/b:1", "4 docker.io/library/nginx:latest"],
    ),
    "hauler": (
        "hauler.yaml",
        "apiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec:\n  images:\n"
        "    - name: busybox:stable\n",
        ["5 docker.io/library/busybox:stable"],
    ),
    "oc-mirror": (
        "imageset.yaml",
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n"
        "  additionalImages:\n"
        "    - name: registry.redhat.io/ubi9/ubi:latest\n",
        ["5 registry.redhat.io/ubi9/ubi:latest"],
    ),
    "CircleCI": (
        "config.yml",
        "version: 2.1\njobs:\n  build:\n    docker:\n      - image: cimg/node:18.1\n"
        "    steps: [checkout]\n",
        ["5 docker.io/cimg/node:18.1"],
    ),
    "Woodpecker": (
        "ci.yaml",
        "steps:\n  build: {image: golang:1.21}\nservices:\n  db: {image: postgres:16}\n",
        ["2 docker.io/library/golang:1.21", "4 docker.io/library/postgres:16"],
    ),
    "Bitbucket": (
        "bitbucket-pipelines.yml",
        "image: node:18\npipelines:\n  default:\n    - step:\n        image: {name: 'python:3'}\n",
        ["1 docker.io/library/node:18", "5 docker.io/library/python:3"],
    ),
    "a Compose file as JSON": (
        "a.json",
        '{"services":{"a":{"image":"nginx:1"}}}',
        ["1 docker.io/library/nginx:1"],
    ),
    "a list as JSON": (
        "a.json",
        '["nginx:1", "alpine:2"]',
        ["1 docker.io/library/nginx:1", "1 docker.io/library/alpine:2"],
    ),
    "JSON about something else": (
        "package.json",
        '{"image": "logo.png", "version": "1:2", "a": ["b:c d"]}',
        [],
    ),
    "values of many charts": (
        "values-prod.yaml",
        "hub: docker.io/istio\ntag: 1.20\nproxy: {image: proxyv2}\n"
        f"a: {{image: {{repository: ghcr.io/a/b, tag: 'v1@sha256:{HEX}'}}}}\n"
        "b: {image: quay.io/y/z, tag: ~}\nc: {imageRepository: quay.io/q/r, imageTag: '5'}\n"
        "d: {image: {override: ~, repository: quay.io/o/p:v1}}\n"
        "e: {extraArgs: [--reloader=quay.io/x/y:1]}\n"
        "f: {images: {a: 'quay.io/x/a:1', b: {repository: quay.io/x/b, tag: 2}}, g: [quay.io/x/c:3]}\n"
        "h: {image: {name: alpine, tag: 3}, imageTag: ''}\n"
        "i: {url: 'http://a.example/b:1', host: 'a.example/b:8080'}\n",
        ["3 ? proxyv2", f"4 ghcr.io/a/b:v1@sha256:{HEX}", "5 ? quay.io/y/z", "6 quay.io/q/r:5",
         "7 quay.io/o/p:v1", "8 quay.io/x/y:1", "9 quay.io/x/a:1", "9 quay.io/x/b:2", "9 quay.io/x/c:3",
         "10 docker.io/library/alpine:3"],
    ),
    "a template with containers put in": (
        "cronjob.yaml",
        "spec:\n  {{- with .Values.imagePullSecrets }}\n  imagePullSecrets: {{ toYaml . }}\n  {{- end }}\n"
        "  containers:\n  - image: {{ .Values.image | quote }}\n  - image: busybox:1.36\n"
        "  {{- tpl (toYaml .Values.extraContainers) . | nindent 2 }}\n",
        ["6 ? {{ .Values.image | quote }}", "7 docker.io/library/busybox:1.36",
         "8 ? {{- tpl (toYaml .Values.extraContainers) . | nindent 2 }}"],
    ),
    "a job of GitLab that extends another": (
        "ci.yml",
        ".docker:\n  image: docker:$V\n  services: ['docker:${V}-dind']\n  variables: {V: '24'}\n"
        "build:\n  extends: .docker\n  script:\n    - docker build -t app .\n    - |\n"
        "      docker run --rm \\\n"
        "        --entrypoint '' \\\n        aquasec/trivy:0.50.0 image app\n",
        ["2 docker.io/library/docker:24", "3 docker.io/library/docker:24-dind",
         "12 docker.io/aquasec/trivy:0.50.0"],
    ),
    "flags and commands in a workflow": (
        "w.yml",
        "jobs:\n  a:\n    runs-on: x\n    container: {image: 'node:${{ matrix.node }}'}\n    steps:\n"
        "      - run: docker compose up -d && docker image pull ghcr.io/x/z:1 | tee log\n"
        "      - run: kubectl run x --image=nginx:1\n      - run: docker run --rm ${{ env.IMG }} true\n",
        [
            "4 ? node:${{ matrix.node }}",
            "6 ghcr.io/x/z:1",
            "7 docker.io/library/nginx:1",
            "8 ? ${{ env.IMG }}",
        ],
    ),
    "a Dockerfile whose stages differ in case": (
        "Dockerfile",
        "FROM golang:1 AS Build\nCOPY --from=build /a /a\nCOPY --from=build:latest /b /b\n"
        "   FROM   x:1   AS   y\n"
        "FROM y as z\nFROM ${A:-b}/c:${D}\n# FROM no:1\n",
        ["1 docker.io/library/golang:1", "3 docker.io/library/build:latest", "4 docker.io/library/x:1",
         "6 ? ${A:-b}/c:${D}"],
    ),
    "a Dockerfile of Jinja": ("Dockerfile.j2", "FROM {{ a }}:{{ b }} AS x\n", ["1 ? {{ a }}:{{ b }}"]),
    "a role with a command": (
        "main.yml",
        "- ansible.builtin.command: docker run quay.io/c/d:2\n- block:\n"
        "    - podman_container: {image: '{{ item }}'}\n",
        ["1 quay.io/c/d:2", "3 ? {{ item }}"],
    ),
    "rules and descriptions that speak of images": (
        "rule.yaml",
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nspec:\n  groups:\n  - rules:\n"
        "    - expr: sum(x{image!=''}) by (image)\n"
        "      annotations: {text: '{{ $labels.image }} is up'}\n",
        [],
    ),
    "steps that are no pipeline's": (
        "steps.yaml",
        "steps:\n- {name: a, image: pictures/one}\n- {name: b, uses: x}\n---\n"
        "steps:\n- {name: first step, script: echo}\n- {name: go/on, script: echo}\n---\n"
        "version: 2\njobs: {a: {image: b}}\n---\n"
        "steps:\n- {text: stir, image: stir}\n- {text: cook, image: pictures/cook.jpg}\n---\n"
        "pipeline:\n  one: {image: intro}\n---\n"
        "steps:\n- {name: go/on, script: echo}\n- {name: and/on, args: [a]}\n",
        [],
    ),
    "a pipeline of Drone that has plugins alone": (
        "a/.drone.yml",
        "pipeline:\n  notify: {image: plugins/slack, channel: a}\n",
        ["2 docker.io/plugins/slack:latest"],
    ),
    "a pipeline of Woodpecker under another name": (
        "ci/lint.yaml",
        "steps:\n- {name: lint, image: golang, commands: [make lint]}\n",
        ["2 docker.io/library/golang:latest"],
    ),
    "a build of Cloud Build under another name": (
        "release.json",
        '{"steps": [{"name": "gcr.io/cloud-builders/go", "args": ["test"]}], "timeout": "60s"}\n',
        ["1 gcr.io/cloud-builders/go:latest"],
    ),
    "an old pipeline of Drone": (
        ".drone.yml",
        "pipeline:\n  build: {image: golang, commands: [make]}\n  notify: {image: plugins/slack}\n"
        "services:\n  db: {image: mysql}\n",
        ["2 docker.io/library/golang:latest", "3 docker.io/plugins/slack:latest",
         "5 docker.io/library/mysql:latest"],
    ),
    "a chart's image in a block of its own": (
        "values.yaml",
        "a:\n  image: |\n    nginx:1.29\nb:\n  image: >-\n    redis\nc:\n  image: |\n    two\n    lines\n",
        ["3 docker.io/library/nginx:1.29", "6 docker.io/library/redis:latest"],
    ),
    "a chart's further images beside one in parts, and pictures": (
        "values.yaml",
        "a:\n  image: a/main\n  imageTag: v1\n  initImage: a/init\n  initImageTag: v2\n"
        "  sideImage: quay.io/a/side:3\n  coverImage: covers/a.jpg\n  coverTag: sale\n"
        "b:\n  logoImage: logo.png\n  logoTag: new\n",
        ["2 docker.io/a/main:v1", "4 docker.io/a/init:v2", "6 quay.io/a/side:3"],
    ),
    "a chart's image with its tag under a key of its own": (
        "values.yaml",
        "rancherImage: rancher/rancher\nrancherImageTag: v2.9.0\n"
        "web_image: quay.io/a/web\nweb_image_version: '1'\n"
        "jobImage: a/job\njobTag: v2\n"
        "openImage: a/open\nopenImageTag: ''\n"
        "sqlImage: a/sql\nsqlVersion: '16'\n"
        "numberImage: a/number\nnumberImageTag: 1.10\n"
        "wholeImage: a/whole:1\nwholeImageTag: '2'\n"
        "aloneImage: a/alone\notherTag: v3\n",
        ["1 docker.io/rancher/rancher:v2.9.0", "3 quay.io/a/web:1", "5 docker.io/a/job:v2", "7 ? a/open",
         "9 ? a/sql", "11 ? a/number + 1.10", "13 docker.io/a/whole:1", "15 docker.io/a/alone:latest"],
    ),
    "a chart's parts that do not make a name by themselves": (
        "values.yaml",
        f"a:\n  image: {{repository: quay.io/a/b, tag: v1, digest: 'sha256:{HEX}', useDigest: false}}\n"
        f"c:\n  image: {{repository: quay.io/a/d, tag: v1, digest: 'sha256:{HEX}', useDigest: true}}\n"
        f"e:\n  image: {{repository: quay.io/a/operator, tag: v1, genericDigest: 'sha256:{HEX}'}}\n"
        "g:\n  image: {repository: quay.io/a/h, tag: v1, tagSuffix: ''}\n"
        "i:\n  image: {repository: quay.io/a/j, tag: v1, tagSuffix: -jmx}\n"
        "k:\n  image: {name: agent, repository: , tag: v1}\n"
        "m:\n  image: {name: n/o, tag: v1}\n",
        ["2 quay.io/a/b:v1", f"4 quay.io/a/d:v1@sha256:{HEX}", "6 ? quay.io/a/operator + v1",
         "8 quay.io/a/h:v1", "10 ? quay.io/a/j + v1", "12 ? agent + v1", "14 docker.io/n/o:v1"],
    ),
    "variables of Nomad and Terraform with defaults in the file": (
        "main.tf",
        'variable "img" {\n  default = "quay.io/a/b:1"\n}\nvariable "tag" {\n  default = "2"\n}\n'
        'variable "open" {}\n'
        + "".join(
            f'resource "kubernetes_pod" "p{number}" {{\n  spec {{\n    container {{\n'
            f"      image = {value}\n    }}\n  }}\n}}\n"
            for number, value in enumerate(
                ['var.img', '"${var.img}"', '"a/c:${var.tag}"', '"a/d:${var.open}"', "var.open",
                 '"a/e:${upper(var.tag)}"']
            )
        )
        + 'resource "google_cloud_run_v2_service" "r" {\n  template {\n    containers {\n'
        '      image = "a/run:1"\n    }\n  }\n}\n',
        ["11 quay.io/a/b:1", "18 quay.io/a/b:1", "25 docker.io/a/c:2", "32 ? a/d:${var.open}",
         "39 ? var.open", "46 ? a/e:${upper(var.tag)}", "53 docker.io/a/run:1"],
    ),
    "a service of systemd that runs an engine": (
        "web.service",
        "[Unit]\nAfter=docker.service\n[Service]\nExecStartPre=-/usr/bin/docker pull a/b:1\n"
        "ExecStart=/usr/bin/podman run --rm \\\n  --name web \\\n  quay.io/c/d:2 serve\n"
        "ExecStop=/usr/bin/docker stop web\nEnvironment=X=docker run e:3\n# ExecStart=docker run f:4\n",
        ["4 docker.io/a/b:1", "7 quay.io/c/d:2"],
    ),
    "comments between the lines of a command, and specifiers": (
        "web@.service",
        "[Service]\nExecStart=/usr/bin/docker run --rm \\\n# --network host \\\n  ; -p 80:80\n"
        "  --name %n \\\n"
        "  # the image\n  quay.io/a/b:1 serve\nExecStop=/usr/bin/docker run a/c:%i\n# docker run f:4\n",
        ["7 quay.io/a/b:1", "8 ? a/c:%i"],
    ),
    "lines of a service that end as Windows has it": (
        "web.service",
        "[Service]\r\nExecStart=/usr/bin/docker run \\\r\n  # so\r\n  a/b:1\r\nUser=c\r\n",
        ["4 docker.io/a/b:1"],
    ),
    "a container of Quadlet with an image mounted": (
        "web.container",
        "[Container]\nImage=quay.io/a/b:1\nMount=type=image,source=quay.io/a/data:2,destination=/x\n"
        "Mount=type=bind,source=/srv,destination=/y\nMount=type=image,src=own.image,dst=/z\n"
        "[Service]\nMount=type=image,source=a/c:3\n",
        ["2 quay.io/a/b:1", "3 quay.io/a/data:2"],
    ),
    "arguments of Compose's builds": (
        "compose.yaml",
        "services:\n  a:\n    image: a/own\n    build:\n      context: .\n      args:\n"
        "        BASE_IMAGE: altinity/server:1\n        RUNTIME_IMAGE: ${RUNTIME}\n"
        "        OTHER_IMAGE: local-name\n        IMAGE_TAG: x:1\n        VERSION: a/b:1\n"
        "        DEFAULT_IMAGE:\n"
        "  b:\n    build:\n      context: .\n      args: [BASE_IMAGE=a/own, FROM_IMAGE=b/c:2, PLAIN_IMAGE]\n"
        "  c:\n    image: a/never:1\n    pull_policy: build\n    build: .\n"
        "  d:\n    build: {context: ., args: {BASE_IMAGE: 'a/never:1'}}\n",
        ["3 docker.io/a/own:latest", "7 docker.io/altinity/server:1", "8 ? ${RUNTIME}",
         "16 docker.io/a/own:latest", "16 docker.io/b/c:2"],
    ),
    "builders, services and other things that a script creates": (
        "up.sh",
        "#!/bin/sh\ndocker buildx create --use --name builder\n"
        "docker buildx create --driver-opt network=host,image=moby/buildkit:v1 --use other\n"
        "docker buildx create --driver-opt='image=moby/buildkit:v2' other\n"
        "docker buildx create\ndocker network create net\ndocker context create there\n"
        "docker service create --detach --name web nginx:1\n",
        ["3 docker.io/moby/buildkit:v1", "4 docker.io/moby/buildkit:v2", "8 docker.io/library/nginx:1"],
    ),
    "Ansible's image with a version": (
        "main.yml",
        "web_image: a/web\nweb_version: '1.2'\ndb_image: a/db:3\ndb_version: '4'\n",
        ["1 ? a/web", "3 docker.io/a/db:3"],
    ),
    "a chart's image with a version": (
        "values.yaml",
        "a: {image: a/b, version: '11'}\nc: {image: a/d, imageVersion: '3'}\n"
        "e: {image: 'a/f:1', version: '2'}\n"
        "g: {image: a/h, versions: '2'}\n",
        ["1 ? a/b", "2 docker.io/a/d:3", "3 docker.io/a/f:1", "4 docker.io/a/h:latest"],
    ),
    "a custom resource's image with its tag under a key of its own": (
        "cr.yaml",
        "apiVersion: a.example.com/v1\nkind: A\nspec:\n  agentImage: a/b\n  agentImageTag: v1\n",
        ["4 docker.io/a/b:v1"],
    ),
    "a devfile's image that is built": (
        "devfile.yaml",
        "schemaVersion: 2.2.0\ncomponents:\n- name: run\n  container: {image: quay.io/a/tools:1}\n"
        "- name: build\n  image: {imageName: quay.io/a/built:1, dockerfile: {uri: Dockerfile}}\n",
        ["4 quay.io/a/tools:1"],
    ),
    "a matrix of containers": (
        ".github/workflows/ci.yml",
        "jobs:\n  a:\n    runs-on: x\n    container: ${{ matrix.distro }}\n    strategy:\n      matrix:\n"
        "        distro: ['fedora:40', debian]\n        version: ['1:2']\n"
        "        include: [{distro: 'alpine:3'}, {version: '3:4'}]\n        exclude: [{distro: 'x:1'}]\n"
        "  b:\n    runs-on: x\n    services: {db: {image: '${{matrix.db.image}}'}}\n    strategy:\n"
        "      matrix: {db: [{image: 'mysql:8', port: 1}, {image: 'postgres:16'}]}\n"
        "  c:\n    runs-on: x\n    container: {image: '${{ matrix.v }}'}\n"
        "    strategy: {matrix: {v: '${{ fromJSON(x) }}'}}\n",
        ["4 ? ${{ matrix.distro }}", "7 docker.io/library/fedora:40", "7 docker.io/library/debian:latest",
         "9 docker.io/library/alpine:3", "13 ? ${{matrix.db.image}}", "15 docker.io/library/mysql:8",
         "15 docker.io/library/postgres:16", "18 ? ${{ matrix.v }}"],
    ),
    "a bake file with variables": (
        "docker-bake.hcl",
        'variable "GO" {\n  default = "1.24"\n}\nvariable "OPEN" {}\n'
        'target "a" {\n  contexts = {\n    base = "docker-image://golang:${GO}"\n'
        '    open = "docker-image://a:${OPEN}"\n    more = "docker-image://b:${upper(GO)}"\n  }\n'
        "  tags = [\"me/app:1\"]\n  dockerfile-inline = <<EOT\nFROM busybox:1.36\nEOT\n}\n",
        ["7 docker.io/library/golang:1.24", "8 ? a:${OPEN}", "9 ? b:${upper(GO)}",
         "13 docker.io/library/busybox:1.36"],
    ),
    "a bake file in JSON": (
        "docker-bake.json",
        '{"variable": {"V": {"default": "3"}},\n "target": {"a": {"contexts":'
        ' {"base": "docker-image://alpine:3.19", "b": "docker-image://c:${V}"},\n'
        ' "dockerfile-inline": "FROM busybox:1\\n", "tags": ["x/y:1"]}}}\n',
        ["2 docker.io/library/alpine:3.19", "2 docker.io/library/c:3", "3 docker.io/library/busybox:1"],
    ),
    "quotes and escapes": (
        "pod.yaml",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: \"a\\u002fb:1\"\n  - image: |\n"
        "      nginx:1\n"
        "  - image: 'it''s'\n  - image: ''\n  - image:\n",
        ["5 docker.io/a/b:1", "7 docker.io/library/nginx:1", "8 ? it's"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_names(case: str) -> None:
    name, text, expected = CASES[case]
    reading = Reading(SourceText(name, text), custom_resources=True, env=dict)
    reading.read()
    images, untold = reading.findings.in_order()
    said = [(image.line, f"{image.line} {image.reference}") for image in images]
    said += [(place.line, f"{place.line} ? {place.written}") for place in untold]
    assert sorted(text for _, text in said) == sorted(expected)
