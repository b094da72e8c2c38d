// Package defence lets the attack suite take isle's defences out, one at a
// time, to see that the test of each fails without it.
//
// A build of isle has all of them: [Removed] is then the constant false, and the
// compiler drops what it guards. Only a build with the tag undefended, which the
// suite makes for itself in a temporary directory, asks the environment
// (ISLE_UNDEFENDED, names separated by commas).
//
// The names and what stands behind each are in test/attacks.
package defence
