package engine

import (
	"context"
	"os"
	"slices"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Manifest is a manifest or index as a registry has it.
type Manifest struct {
	Name      string            `json:"name"`
	MediaType string            `json:"mediaType"`
	Content   []byte            `json:"content"`
	Digest    string            `json:"digest"`
	Entries   []image.ListEntry `json:"entries"` // of an index; else the one
}

// Annotation is what an entry of a manifest list is to say of its platform; ""
// leaves what it says.
type Annotation struct {
	OS, Arch, Variant, OSVersion string
	OSFeatures                   []string
}

func manifestArgs(verb string, insecure bool, more ...string) []string {
	args := []string{"manifest", verb}
	if insecure {
		args = append(args, "--insecure")
	}
	return append(args, more...)
}

// CreateManifest makes a local manifest list of images at registries and
// returns its name.
func (e *Engine) CreateManifest(ctx context.Context, list string, refs []string, amend, insecure bool) (string, error) {
	args := manifestArgs("create", insecure)
	if amend {
		args = append(args, "--amend")
	}
	var res struct {
		Name string `json:"name"`
	}
	err := e.server(ctx, &res, os.Stderr, nil, append(append(args, "--", list), refs...)...)
	return res.Name, err
}

// InspectManifest fetches what ref means at its registry.
func (e *Engine) InspectManifest(ctx context.Context, ref string, insecure bool) (*Manifest, error) {
	m := new(Manifest)
	return m, e.server(ctx, m, os.Stderr, nil, manifestArgs("inspect", insecure, "--", ref)...)
}

// PushManifest pushes a local manifest list and returns its digest.
func (e *Engine) PushManifest(ctx context.Context, list string, purge, insecure bool) (string, error) {
	args := manifestArgs("push", insecure)
	if purge {
		args = append(args, "--purge")
	}
	var p Pushed
	err := e.server(ctx, &p, os.Stderr, nil, append(args, "--", list)...)
	return p.Digest, err
}

// LocalManifest returns a local manifest list. The error is NotFound if there
// is none.
func (e *Engine) LocalManifest(list string) (*image.ManifestList, error) {
	n, err := image.ParseName(list)
	if err != nil {
		return nil, err
	}
	return e.images.ReadList(n)
}

// AnnotateManifest changes what a local manifest list says of ref's platform.
func (e *Engine) AnnotateManifest(_ context.Context, list, ref string, o Annotation) error {
	l, err := e.LocalManifest(list)
	if err != nil {
		return errs.New(errs.NotFound, "manifest for image %s does not exist in %s", ref, list)
	}
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(l.Entries, func(e image.ListEntry) bool { return e.Ref == n.String() })
	if at < 0 {
		return errs.New(errs.NotFound, "manifest for image %s does not exist in %s", ref, list)
	}
	entry := &l.Entries[at]
	p := image.Platform{}
	if entry.Descriptor.Platform != nil {
		p = *entry.Descriptor.Platform
	}
	for _, s := range [...]struct {
		to  *string
		val string
	}{{&p.OS, o.OS}, {&p.Arch, o.Arch}, {&p.Variant, o.Variant}, {&entry.OSVersion, o.OSVersion}} {
		if s.val != "" {
			*s.to = s.val
		}
	}
	for _, f := range o.OSFeatures {
		if !slices.Contains(entry.OSFeatures, f) {
			entry.OSFeatures = append(entry.OSFeatures, f)
		}
	}
	if !knownPlatform(p) {
		return errs.New(errs.Invalid, "manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Arch)
	}
	entry.Descriptor.Platform = &p
	return e.images.WriteList(l)
}

// knownPlatform reports whether Go, in whose words platforms are written, knows
// the pair.
func knownPlatform(p image.Platform) bool {
	known := map[string][]string{
		"darwin": {"386", "amd64", "arm", "arm64"}, "dragonfly": {"amd64"}, "freebsd": {"386", "amd64", "arm"}, "netbsd": {"386", "amd64", "arm"},
		"openbsd": {"386", "amd64", "arm"}, "plan9": {"386", "amd64"}, "solaris": {"amd64"}, "windows": {"386", "amd64", "arm", "arm64"},
		"linux": {"386", "amd64", "arm", "arm64", "ppc64le", "mips64", "mips64le", "riscv64", "s390x", "loong64"},
	}
	return slices.Contains(known[p.OS], p.Arch)
}

// RemoveManifest removes a local manifest list.
func (e *Engine) RemoveManifest(_ context.Context, list string) error {
	n, err := image.ParseName(list)
	if err != nil {
		return err
	}
	return e.images.RemoveList(n)
}
