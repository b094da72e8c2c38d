# Sourced by the scripts beside it: where things are, and how packages are fetched.
# shellcheck shell=bash
set -euo pipefail
VM=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
TREE=$(readlink -f "$VM/../..")
CACHE=${ISLE_VM_CACHE:-$TREE/.cache/vm}
ME=$(basename "$0")
PATH=$PATH:/usr/sbin:/sbin # mke2fs, for an ordinary user too

die() {
	echo "$ME: $*" >&2
	exit 125
}

step() { printf '%s: [%4ds] %s\n' "$ME" $SECONDS "$*" >&2; }

# recipe FILE...: twelve digits that change when one of the files does.
recipe() { cat "$@" | sha256sum | cut -c1-12; }

# image_dir: where the image of the present recipe lies, or is to be built.
image_dir() {
	local r
	r=$(recipe "$VM/image" "$VM"/guest/*) && echo "$CACHE/image-$r"
}

# uml_dir: the User Mode Linux kernel of the present recipe.
uml_dir() {
	local r
	r=$(recipe "$VM/kernel" "$VM/uml.config") && echo "$CACHE/uml-$r"
}

# need TOOL...: names what is missing, with the command that installs it.
need() {
	local t missing=
	for t; do command -v "$t" >/dev/null || missing="$missing $t"; done
	[ -z "$missing" ] || die "not installed:$missing (hack/setup vm, as root)"
}

# archive main|security: the archive that this machine's apt already uses.
archive() {
	local uri=
	uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		awk -v want="$1" '{ is = ($2 ~ /security/) ? "security" : "main" } is == want && !found { print $1; found = 1 }')
	if [ -z "$uri" ]; then
		case $1 in main) uri=http://deb.debian.org/debian ;; *) uri=http://security.debian.org/debian-security ;; esac
	fi
	echo "$uri"
}
