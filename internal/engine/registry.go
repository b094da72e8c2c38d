package engine

import (
	"context"
	"os"
	"strconv"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// PushOptions of push.
type PushOptions struct {
	Platform string
	Quiet    bool
	Progress *os.File // nil: no progress
	All      bool     // all tags
}

// Pushed is a name that a registry has now.
type Pushed struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Push sends an image to its registry; the progress is printed by isled to
// o.Progress.
func (e *Engine) Push(ctx context.Context, ref string, o PushOptions) ([]Pushed, error) {
	if _, err := image.ParseName(ref); err != nil {
		return nil, err
	}
	args := []string{"push"}
	if o.Platform != "" {
		args = append(args, "--platform", o.Platform)
	}
	if o.Quiet || o.Progress == nil {
		args = append(args, "--quiet")
	}
	if o.All {
		args = append(args, "--all-tags")
	}
	var res struct {
		Pushed []Pushed `json:"pushed"`
	}
	err := e.server(ctx, &res, o.Progress, nil, append(args, ref)...)
	for _, p := range res.Pushed {
		e.tell("image", "push", p.Name, map[string]string{"name": p.Name})
	}
	return res.Pushed, err
}

// Save writes images as an archive to out.
func (e *Engine) Save(ctx context.Context, refs []string, platform string, out *os.File) error {
	args := []string{"save"}
	if platform != "" {
		args = append(args, "--platform", platform)
	}
	var res struct {
		Bytes int64 `json:"bytes"`
	}
	err := e.server(ctx, &res, os.Stderr, out, append(append(args, "--"), refs...)...)
	if err == nil {
		for _, r := range refs {
			e.tell("image", "save", r, map[string]string{"name": r})
		}
	}
	return err
}

// Login is what a login did.
type Login struct {
	Server string `json:"server"`
	User   string `json:"user"`
	File   string `json:"file"`
	Plain  bool   `json:"plain"` // kept in the file as it is
}

// Login verifies a credential with a registry ("" is docker.io) and keeps it.
// Without a user name it verifies the one that is kept; the error is NotFound if
// there is none.
func (e *Engine) Login(ctx context.Context, server, user, password string) (Login, error) {
	var l Login
	r, w, err := os.Pipe()
	if err != nil {
		return l, err
	}
	defer r.Close()
	// A pipe holds 64 KiB, more than any password that is accepted.
	_, err = w.WriteString(password)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return l, err
	}
	args := []string{"login"}
	if user != "" {
		args = append(args, "--username", user)
	} else {
		args = append(args, "--stored")
	}
	err = e.server(ctx, &l, os.Stderr, r, append(args, "--", server)...)
	return l, err
}

// Logout forgets the credential of a registry ("" is docker.io). It returns
// the name that it was kept under, and the files that it was in.
func (e *Engine) Logout(ctx context.Context, server string) (name string, files []string, err error) {
	var res struct {
		Server string `json:"server"`
		Forgot []struct {
			File string `json:"file"`
		} `json:"forgot"`
	}
	err = e.server(ctx, &res, os.Stderr, nil, "logout", "--", server)
	for _, f := range res.Forgot {
		files = append(files, f.File)
	}
	return res.Server, files, err
}

// Found is a repository that a search found.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// Search asks a registry's index for repositories. Filters are is-automated,
// is-official and stars.
func (e *Engine) Search(ctx context.Context, term string, limit int, f Filter) ([]Found, error) {
	keep, err := foundFilter(f)
	if err != nil {
		return nil, err
	}
	var res struct {
		Found []Found `json:"found"`
	}
	if err := e.server(ctx, &res, os.Stderr, nil, "search", "--limit", strconv.Itoa(limit), "--", term); err != nil {
		return nil, err
	}
	out := res.Found[:0]
	for _, r := range res.Found {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

func foundFilter(f Filter) (func(Found) bool, error) {
	stars := 0
	var official, automated *bool
	for key, values := range f {
		for _, v := range values {
			switch key {
			case "stars":
				n, err := strconv.Atoi(v)
				if err != nil {
					return nil, errs.New(errs.Invalid, "invalid filter 'stars=%s'", v)
				}
				stars = max(stars, n)
			case "is-official", "is-automated":
				b, ok := truth(v)
				if !ok {
					return nil, errs.New(errs.Invalid, "invalid filter '%s=%s'", key, v)
				}
				if key == "is-official" {
					official = &b
				} else {
					automated = &b
				}
			default:
				return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
			}
		}
	}
	return func(r Found) bool {
		return r.Stars >= stars && (official == nil || *official == r.Official) && (automated == nil || *automated == r.Automated)
	}, nil
}
