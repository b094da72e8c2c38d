# Sourced by a lane in the guest, whose working directory is the payload.
# shellcheck shell=bash
export ISLE_TEST_USER=alice ISLE_BIN=$PWD/bin ISLE_E2E_STORE=$PWD/store PATH=$PWD/bin:$PATH
PAYLOAD=$PWD FAILED=
cd "$PAYLOAD" || exit

# tests DIRECTORY [ARGUMENT...]: the tests of a package, with what was skipped.
tests() {
	local pkg=$1 start=$SECONDS
	shift
	(cd "$PAYLOAD/tests/$pkg" && "$PAYLOAD/bin/lane" ./test -test.count=1 "$@") || FAILED="$FAILED $pkg"
	echo "-- $pkg: $((SECONDS - start)) s"
}

# finish ends the lane.
finish() {
	[ -z "$FAILED" ] || { echo "failed:$FAILED"; exit 1; }
	exit 0
}
