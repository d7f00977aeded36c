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
