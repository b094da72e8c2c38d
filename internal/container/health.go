package container

import "time"

// Docker's defaults of a health check.
const (
	HealthInterval      = 30 * time.Second
	HealthTimeout       = 30 * time.Second
	HealthStartInterval = 5 * time.Second
	HealthRetries       = 3
)

// The words of Health.Status.
const (
	HealthStarting = "starting"
	Healthy        = "healthy"
	Unhealthy      = "unhealthy"
)

// MergeHealth lays the health check of a request over that of its image: what is
// not asked for stays as the image has it. It returns nil when neither has any.
func MergeHealth(own, image *Healthcheck) *Healthcheck {
	switch {
	case own == nil && image == nil:
		return nil
	case own == nil:
		h := *image
		return &h
	case image == nil:
		h := *own
		return &h
	}
	h := *image
	if len(own.Test) > 0 {
		h.Test = own.Test
	}
	for _, d := range [...]struct {
		to   *time.Duration
		from time.Duration
	}{
		{&h.Interval, own.Interval}, {&h.Timeout, own.Timeout}, {&h.StartPeriod, own.StartPeriod}, {&h.StartInterval, own.StartInterval},
	} {
		if d.from != 0 {
			*d.to = d.from
		}
	}
	if own.Retries != 0 {
		h.Retries = own.Retries
	}
	return &h
}

// Checks is the health check that is to be run in the container, with defaults
// filled in; nil when there is none, or when it was turned off.
func (r *Record) Checks() *Healthcheck {
	h := MergeHealth(r.Config.Health, r.Image.Config.Health)
	if h == nil || len(h.Test) == 0 {
		return nil
	}
	switch h.Test[0] {
	case "CMD", "CMD-SHELL":
		if len(h.Test) < 2 {
			return nil
		}
	default: // NONE
		return nil
	}
	for _, d := range [...]struct {
		to    *time.Duration
		value time.Duration
	}{
		{&h.Interval, HealthInterval}, {&h.Timeout, HealthTimeout}, {&h.StartInterval, HealthStartInterval},
	} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if h.Retries == 0 {
		h.Retries = HealthRetries
	}
	return h
}

// CheckCommand is the command line of h in the container of r.
func (r *Record) CheckCommand(h *Healthcheck) []string {
	if h.Test[0] == "CMD" {
		return h.Test[1:]
	}
	shell := r.Image.Config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append(make([]string, 0, len(shell)+1), shell...), h.Test[1])
}
