#!/bin/sh
# Runs the suites of other projects against isle's OCI runtime:
#
#   suites.sh ISLE DIRECTORY
#
# DIRECTORY holds what is there of: runc/ (opencontainers/runc, its test binaries
# built: make test-binaries), crun/ (containers/crun, tests/init built) and
# runtime-tools/ (opencontainers/runtime-tools: make runtimetest
# validation-executables). With PEER=/path/to/runc the same is run with that
# runtime, to compare. The output of each is left in $OUT (default: a temporary
# directory); the last lines count.
set -eu
[ $# = 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
isle=$(realpath "$1")
suites=$(realpath "$2")
out=${OUT:-$(mktemp -d /var/tmp/isle-suites-XXXXXX)}
mkdir -p "$out/bin"
# Called runc, isle has runc's command line.
runtime=$out/bin/runc
if [ -n "${PEER-}" ]; then ln -sf "$(realpath "$PEER")" "$runtime"; else cp "$isle" "$runtime"; fi

if [ -d "$suites/runc" ]; then
	# The tests want a terminal, and the images where get-images.sh puts them.
	(cd "$suites/runc" && RUNC=$runtime TERM=xterm script -qec "bats -t ${BATS:-tests/integration}" /dev/null </dev/null >"$out/runc.tap" 2>&1) || true
fi
if [ -d "$suites/crun" ]; then
	: >"$out/crun.tap"
	for t in "$suites"/crun/tests/test_*.py; do
		(cd "$suites/crun" && INIT=$PWD/tests/init OCI_RUNTIME=$runtime timeout 600 python3 "$t" </dev/null 2>>"$out/crun.err" >>"$out/crun.tap") || true
	done
fi
if [ -d "$suites/runtime-tools" ]; then
	: >"$out/runtime-tools.tap"
	cd "$suites/runtime-tools"
	for t in validation/*/*.t; do
		name=${t##*/}
		if RUNTIME=$runtime timeout 120 "$t" </dev/null >"$out/rt-$name" 2>&1 && ! grep -q '^not ok' "$out/rt-$name" && grep -q '^ok\|^1\.\.' "$out/rt-$name"; then
			echo "ok - ${name%.t}"
		else
			echo "not ok - ${name%.t}"
		fi >>"$out/runtime-tools.tap"
	done
fi
for f in "$out"/*.tap; do
	[ -e "$f" ] || continue
	skipped=$(grep -ci '^ok.*# *skip' "$f" || true)
	echo "$(basename "$f" .tap): $(($(grep -c '^ok' "$f" || true) - skipped)) passed, $skipped skipped, $(grep -c '^not ok' "$f" || true) failed"
done
echo "output: $out"
