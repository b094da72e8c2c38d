// Package attacks replays the escapes of the last years against a container
// engine, from its command line: hostile images, hostile processes, races.
//
// It hides how a hostile image is made and how an engine is told to take it. Each
// attack ([attack]) says what it broke, or nothing: a file of the host that was
// read or changed, a right that a container should not have, a refusal that did
// not come. What it asserts with are sentinels: a tree of the host whose content
// and times must not change, a listener that must not be reached, the engine's
// own executable.
//
// The engine is isle, or what ENGINE names: any program with Docker's command
// line (ENGINE=podman make attacks). Then the tests report what breaks there.
//
// An attack that cannot succeed proves nothing. So for each, TestDefencesMatter
// takes the defence out and wants the attack to succeed: by a build of isle that
// lacks it (package linux/defence), or by the very flags with which a user gives
// it up (--privileged). An attack that fails even then names in its row why there
// is no one defence to take out.
//
// The classes are those of ledger.md, which a test compares with the table here.
package attacks
