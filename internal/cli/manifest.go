package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

const insecureHelp = "Do without verified TLS with these registries"

func cmdManifestCreate(c *call) func() error {
	amend, insecure := false, false
	c.flags = []flag{
		{name: "amend", short: 'a', v: (*boolVar)(&amend), help: "Amend an existing manifest list"},
		{name: "insecure", v: (*boolVar)(&insecure), help: insecureHelp},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		name, err := eng.CreateManifest(c.ctx, c.args[0], c.args[1:], amend, insecure)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout(), "Created manifest list "+visible(name))
		return err
	}
}

func cmdManifestAnnotate(c *call) func() error {
	var o engine.Annotation
	c.flags = []flag{
		{name: "arch", v: (*stringVar)(&o.Arch), help: "Set architecture"},
		{name: "os", v: (*stringVar)(&o.OS), help: "Set operating system"},
		{name: "os-features", v: (*wordsVar)(&o.OSFeatures), help: "Set operating system feature"},
		{name: "os-version", v: (*stringVar)(&o.OSVersion), help: "Set operating system version"},
		{name: "variant", v: (*stringVar)(&o.Variant), help: "Set architecture variant"},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		return eng.AnnotateManifest(c.ctx, c.args[0], c.args[1], o)
	}
}

func cmdManifestPush(c *call) func() error {
	purge, insecure := false, false
	c.flags = []flag{
		{name: "insecure", v: (*boolVar)(&insecure), help: insecureHelp},
		{name: "purge", short: 'p', v: (*boolVar)(&purge), help: "Remove the local manifest list after the push"},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		digest, err := eng.PushManifest(c.ctx, c.args[0], purge, insecure)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout(), digest)
		return err
	}
}

func cmdManifestRm(c *call) func() error {
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		return c.each(func(ref string) error { return eng.RemoveManifest(c.ctx, ref) })
	}
}

func cmdManifestInspect(c *call) func() error {
	verbose, insecure := false, false
	c.flags = []flag{
		{name: "insecure", v: (*boolVar)(&insecure), help: insecureHelp},
		{name: "verbose", short: 'v', v: (*boolVar)(&verbose), help: "Show more: where it is, layers and platform"},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		ref := c.args[len(c.args)-1]
		if len(c.args) == 2 {
			return c.inspectEntry(eng, c.args[0], ref, verbose)
		}
		l, err := eng.LocalManifest(ref)
		if err == nil {
			return c.printList(l, verbose)
		}
		if errs.KindOf(err) != errs.NotFound {
			return err
		}
		m, err := eng.InspectManifest(c.ctx, ref, insecure)
		if err != nil {
			return err
		}
		switch {
		case verbose:
		case isIndexType(m.MediaType):
			return c.textOut(strings.TrimRight(string(m.Content), "\n") + "\n") // as it is
		default:
			return c.printManifest(m.Content)
		}
		var all []manifestJSON
		for i := range m.Entries {
			all = append(all, verboseManifest(&m.Entries[i]))
		}
		if isIndexType(m.MediaType) {
			return c.printIndented(all)
		}
		return c.printIndented(all[0])
	}
}

func isIndexType(t string) bool { return t == image.TypeOCIIndex || t == image.TypeDockerList }

// inspectEntry shows what a local list says of one of its images.
func (c *call) inspectEntry(eng registrar, list, ref string, verbose bool) error {
	n, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	l, err := eng.LocalManifest(list)
	if err != nil {
		return err
	}
	for i := range l.Entries {
		if e := &l.Entries[i]; e.Ref == n.String() {
			if verbose {
				return c.printIndented(verboseManifest(e))
			}
			return c.printManifest(e.Manifest)
		}
	}
	return errs.New(errs.NotFound, "No such manifest: %s", n.Familiar())
}

// printList shows a local list as it would be pushed.
func (c *call) printList(l *image.ManifestList, verbose bool) error {
	if verbose {
		all := []manifestJSON{}
		for i := range l.Entries {
			all = append(all, verboseManifest(&l.Entries[i]))
		}
		return c.printIndented(all)
	}
	ix, err := image.IndexOf(l)
	if err != nil {
		return err
	}
	return c.textOut(string(ix) + "\n")
}

// printManifest prints a manifest's own text, indented.
func (c *call) printManifest(data []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "\t"); err != nil {
		return err
	}
	return c.textOut(b.String() + "\n")
}

func (c *call) printIndented(v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return c.textOut(string(data) + "\n")
}

// manifestJSON is what Docker's `manifest inspect --verbose` shows of an image.
type manifestJSON struct {
	Ref              string
	Descriptor       descriptorJSON
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

type descriptorJSON struct {
	MediaType string                   `json:"mediaType"`
	Digest    string                   `json:"digest"`
	Size      int64                    `json:"size"`
	Platform  *image.DescribedPlatform `json:"platform,omitempty"`
}

func verboseManifest(e *image.ListEntry) manifestJSON {
	m := manifestJSON{Ref: e.Ref, Descriptor: descriptorJSON{e.Descriptor.MediaType, e.Descriptor.Digest, e.Descriptor.Size, e.Described()}, Raw: e.Manifest}
	if e.Descriptor.MediaType == image.TypeOCIManifest {
		m.OCIManifest = e.Manifest
	} else {
		m.SchemaV2Manifest = e.Manifest
	}
	return m
}
