package cli

import "github.com/isle-engine/isle/internal/errs"

// cmdOCI is in the table for help and completion. The command is another program
// of this binary, chosen by the first word (cmd/isle), so that it is reached here
// only behind flags of isle's own.
func cmdOCI(*call) func() error {
	return func() error {
		return &usageError{errs.New(errs.Invalid, "oci: has flags of its own and comes first: isle oci COMMAND"), 1}
	}
}
