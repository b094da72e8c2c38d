package container

import (
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// ParseRestartPolicy reads no, always, unless-stopped or on-failure[:MAX].
func ParseRestartPolicy(s string) (RestartPolicy, error) {
	name, count, two := strings.Cut(s, ":")
	p := RestartPolicy{Name: name}
	if two && name == "" {
		return p, errs.New(errs.Invalid, "invalid restart policy format: no policy provided before colon")
	}
	if two {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errs.New(errs.Invalid, "invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaxRetries = n
	}
	switch name {
	case "", "no", "always", "unless-stopped":
		if p.MaxRetries != 0 {
			return p, errs.New(errs.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
		if p.MaxRetries < 0 {
			return p, errs.New(errs.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return p, errs.New(errs.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", name)
	}
	return p, nil
}
