#!/bin/sh
VERSION=1.2
REGISTRY=${REGISTRY:-registry.example.com}
PAUSE=registry.example.com/pause:3.9
IMAGES="
  registry.example.com/literal:1
  $REGISTRY/variable:$VERSION
"
for image in $IMAGES; do docker pull "$image"; done
cat > list.txt <<END
registry.example.com/listed:1
${OTHER}/listed:2
END
cat <<END
Usage: pull registry.example.com/not/listed:1
END
more=(
  "registry.example.com/array:1"
)
kubectl apply -f - <<YAML
kind: Pod
apiVersion: v1
spec:
  containers:
    - {name: a, image: registry.example.com/applied:1}
    - name: b
      image: registry.example.com/applied:${VERSION}
YAML
docker build -t made -f - "$CONTEXT" <<DOCKER
FROM registry.example.com/piped:1
DOCKER
