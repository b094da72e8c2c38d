package conformance

import "os"

func specsMode(m uint32) os.FileMode { return os.FileMode(m) }

// differences are the variations in which isle is known not to be as Debian's
// runc (1.1) is, each with the reason.
func differences() map[string]string {
	const (
		newer = "as runc 1.2 and newer"
		spec  = "as the specification has it"
	)
	return map[string]string{
		"words/list --format nonsense":                   newer + ": a root that was named must be there",
		"words/list -q":                                  newer + ": a root that was named must be there",
		"words/run --bundle /b/words --preserve-fds 5 c": "runc looks for descriptors among its own, which it has opened meanwhile",

		"hooks/all":                    "poststart hooks run after start, and are told of a running container, " + spec + "; runc runs them in create",
		"hooks/poststart-fails":        "poststart hooks run after start, " + spec,
		"hooks/poststart-missing":      "poststart hooks run after start, " + spec,
		"hooks/startContainer-fails":   "start tells that a startContainer hook has failed; with runc the container ends without a word",
		"hooks/startContainer-missing": "start tells that a startContainer hook has failed; with runc the container ends without a word",
		"hooks/poststop-fails":         newer + ": delete tells that a hook has failed",
		"hooks/poststop-missing":       newer + ": delete tells that a hook has failed",
		"propagation/shared":           newer + ": the root is shared, as asked for",
		"propagation/rshared":          newer + ": the root is shared, as asked for",
		"device/null":                  "a device of the spec's replaces the default one; runc refuses the second",
		"limit/pids0":                  newer + ": no tasks but one",
	}
}
