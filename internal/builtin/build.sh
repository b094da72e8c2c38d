#!/bin/sh
# Builds the built-in image for one architecture: build.sh GOARCH CACHE-DIRECTORY
# Called by make. Needs Go, and its module proxy the first time.
set -eu
arch=$1
mkdir -p "$2/builtin-$1"
cache=$(cd "$2/builtin-$1" && pwd)
cd "$(dirname "$0")"
here=$PWD

own="sh ps env id head"

cd userland
export CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly GOOS=linux
pkgs=$(go list -e -tags commands -f '{{join .Imports "\n"}}' . | grep /cmds/)
commands=$(printf '%s\n' "$pkgs" | sed 's,.*/,,')
for c in $own; do pkgs="$pkgs ./$c"; done
GOARCH=$(go env GOHOSTARCH) go build -o "$cache/makebb" github.com/u-root/gobusybox/src/cmd/makebb
# shellcheck disable=SC2086
if ! GOARCH=$arch "$cache/makebb" -go-mod readonly -o "$cache/bb" $pkgs >"$cache/log" 2>&1; then
	cat "$cache/log" >&2
	exit 1
fi
cd "$here"
# shellcheck disable=SC2086
unset GOFLAGS
GOARCH=$(go env GOHOSTARCH) go run ./pack -arch "$arch" -bin "$cache/bb" -out "data/$arch/base.tar" $commands $own
