# Sourced by a lane in the guest, whose working directory is the payload.
# shellcheck shell=bash
export ISLE_TEST_USER=alice ISLE_BIN=$PWD/bin ISLE_E2E_STORE=$PWD/store PATH=$PWD/bin:$PATH
PAYLOAD=$PWD FAILED=
cd "$PAYLOAD" || exit

# tests DIRECTORY [ARGUMENT...]: the tests of a package, with what was skipped.
tests() {
	local pkg=$1 start=$SECONDS
	shift
	(cd "$PAYLOAD/tests/$pkg" && "$PAYLOAD/bin/lane" "./${pkg##*/}.test" -test.count=1 "$@") || FAILED="$FAILED $pkg"
	echo "-- $pkg: $((SECONDS - start)) s"
}

# session WHO FILE...: what WHO (a word of `as`) types and sees, from testdata of
# test/e2e.
session() {
	local who=$1 start=$SECONDS
	shift
	(cd "$PAYLOAD/tests/test/e2e" && ISLE_E2E_SESSIONS="$*" as "$who" "$PAYLOAD/bin/lane" ./e2e.test -test.count=1 -test.v -test.run '^TestSessions$') 2>&1 | tee /tmp/session
	# Every one has run, whatever the environment lost on its way through su.
	[ "$(grep -c '^ *--- PASS: TestSessions/' /tmp/session)" = $# ] || FAILED="$FAILED $who:$*"
	echo "-- $who: $*: $((SECONDS - start)) s"
}

# expect REGEX COMMAND...: the command succeeds and a line of its output matches;
# with "-" for the regex it prints nothing.
expect() {
	local re=$1 out code=0
	shift
	out=$("$@" 2>&1) || code=$?
	printf '$ %s\n%s\n[%d]\n' "$*" "$out" $code
	if [ $code != 0 ] || { [ "$re" = - ] && [ -n "$out" ]; } || { [ "$re" != - ] && ! grep -qE -- "$re" <<<"$out"; }; then
		echo "want: $re"
		FAILED="$FAILED [$*]"
	fi
}

# eventually REGEX COMMAND...: as expect, within half a minute.
eventually() {
	local re=$1
	shift
	for _ in $(seq 150); do
		"$@" 2>&1 | grep -qE -- "$re" && break
		sleep .2
	done
	expect "$re" "$@"
}

# finish ends the lane.
finish() {
	[ -z "$FAILED" ] || { echo "failed:$FAILED"; exit 1; }
	exit 0
}
