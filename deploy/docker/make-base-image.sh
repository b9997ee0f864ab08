#!/bin/sh
# A base image for the Dockerfile beside this, made from Debian's packages: for machines that reach no image registry.
#
#     sudo deploy/docker/make-base-image.sh [NAME]        (default: odradek-base:trixie)
#     docker build -f deploy/docker/Dockerfile --build-arg BASE_IMAGE=odradek-base:trixie -t odradek .
#
# Needs root, debootstrap and docker.
#   SUITE=bookworm        another release (default: trixie, which has Python 3.13; bookworm has 3.11)
#   MIRROR=http://…       another mirror
#   EXTRA=iproute2        more packages, comma-separated
set -eu

suite=${SUITE:-trixie}
mirror=${MIRROR:-http://deb.debian.org/debian}
name=${1:-odradek-base:$suite}
extra=${EXTRA:+,$EXTRA}

for tool in debootstrap docker tar; do
    command -v "$tool" > /dev/null || { echo "make-base-image: there is no $tool here" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "make-base-image: debootstrap needs root" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include="ca-certificates,python3,python3-venv$extra" "$suite" "$root" "$mirror" \
    > "$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
# What no container reads.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/* "$root"/var/log/* "$root"/dev/*
tar -C "$root" --numeric-owner -c . | docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' - "$name" > /dev/null
docker image inspect --format "$name: {{.Size}} bytes" "$name"
