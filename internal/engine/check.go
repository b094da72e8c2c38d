package engine

import (
	"context"
	"os"
)

// Finding is something that a check of the stores found.
type Finding struct {
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
	Problem string `json:"problem"`
	Done    string `json:"done"`   // what was done about it
	Failed  string `json:"failed"` // why that could not be done
}

// Checked is the result of a check.
type Checked struct {
	Blobs      int       `json:"blobs"`
	Layers     int       `json:"layers"`
	Unverified int       `json:"unverified"` // layers whose blob is not here
	Images     int       `json:"images"`
	Containers int       `json:"containers"`
	Findings   []Finding `json:"findings"`
	Unused     int       `json:"unused"` // pieces of content that nobody needs
	Freed      int64     `json:"freed"`  // their bytes
}

// Check compares every blob, layer and record with what it should be. With
// repair, what is damaged is taken out of use, and what nobody needs removed.
// The progress goes to standard error.
func (e *Engine) Check(ctx context.Context, repair, quiet bool) (*Checked, error) {
	args := []string{"check"}
	if repair {
		args = append(args, "--repair")
	}
	progress := os.Stderr
	if quiet {
		progress = nil
	}
	res := new(Checked)
	return res, e.server(ctx, res, progress, nil, args...)
}
