// Package testenv gives isle's tests what they share: words for what a test
// needs of the machine, new namespaces and an ordinary user to run in, a
// directory on a real disk, and a check that nothing was left behind.
//
// It hides how a need is probed, how a test runs itself again, and how a
// process, mount or directory is found to belong to a test.
//
// A test says what it needs in words ([Need]). A word that the machine does not
// satisfy skips the test, and the skip is counted: it is appended to the file
// that ISLE_TEST_SKIPS names. A lane of CI sets ISLE_EXPECT_SKIPS to the words
// it is known to lack; any other skip there is a failure, so that a test cannot
// quietly stop running.
//
// A test that needs another user or namespaces runs its own binary once more
// for just itself ([AsUser], [Unshare]); the parent's copy of the test reports
// what the child's copy printed:
//
//	func TestMount(t *testing.T) {
//		testenv.Need(t, testenv.UserNS)
//		if !testenv.Unshare(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
//			return // the parent; the child has run the rest
//		}
//		...
//	}
//
// Invariants: an unknown word fails the test; nothing here is linked into the
// binaries; whatever a helper makes, it removes at the end of the test.
//
// See user_namespaces(7), pid_namespaces(7), cgroups(7), newuidmap(1).
package testenv
