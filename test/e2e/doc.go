// Package e2e tests the real binaries from outside: the lesson of README.md word
// for word, a table of bad input, and storms of kill -9, each as root and as an
// ordinary user, against a real registry that holds real images.
//
// A session file in testdata is what a user types and sees:
//
//	# a comment
//	$ isle run --rm alpine:3.20 echo hi      a command line for bash(1)
//	| ^hi$                                   a line of its output matches
//	!| error                                 no line does
//	2| pulling                               the same for standard error (!2|)
//	= 125                                    its exit code; 0 if not said
//	@ v1                                     what follows only where the word applies; "@" alone ends it
//
// Every test has data and runtime directories of its own, so that what it leaves
// behind can be told from other tests' work: a process, mount or cgroup that
// stays fails it.
package e2e
