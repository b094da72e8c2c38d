#!/bin/sh
# Builds pid1.c for each machine that a compiler is here for:
#   build.sh [OUTDIR]        (the default is the directory above)
# and notes the compilers' versions, since other versions give other bytes.
set -eu
cd "$(dirname "$0")"
out=${1:-..}
flags='-Os -std=gnu11 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -no-pie -fno-pie
  -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-ident -fomit-frame-pointer
  -fno-builtin -ffunction-sections -fcf-protection=none
  -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,noexecstack -Wl,-n -Wl,--gc-sections -Wl,-s'
build() { # arch compiler extra-flags
	if ! command -v "$2" >/dev/null; then
		echo "$1: no $2 here" >&2
		return
	fi
	f=$flags
	[ "$1" = amd64 ] || f=$(echo "$f" | sed 's/-fcf-protection=none//')
	"$2" $f $3 -o "$out/pid1_$1" pid1.c
	chmod 644 "$out/pid1_$1" # data, not a program to find by accident
	"$2" -dumpfullversion >"$out/pid1_$1.gcc"
	wc -c "$out/pid1_$1" >&2
}
case $(uname -m) in
x86_64) native=gcc cross=aarch64-linux-gnu-gcc ;;
*) native=x86_64-linux-gnu-gcc cross=gcc ;;
esac
build amd64 "$native" ''
build arm64 "$cross" '-mno-outline-atomics'
